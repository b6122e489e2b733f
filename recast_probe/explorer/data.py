"""What the explorer shows of runs: plain JSON and packed arrays, within a budget of bytes."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from recast_probe._utils.text_format import memory, spans
from recast_probe.diagnostics import arrays as formulas
from recast_probe.errors import InputError
from recast_probe.explorer.coding import coded, packed
from recast_probe.explorer.same_run import check_same_run
from recast_probe.layout import GROUPS, Grid
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.profiles.profile import AttentionProfile

BUDGET = 20_000_000
"""Bytes of a file by default."""
AXES = ("step", "block", "head")
TYPES = {"uint8": "u1", "float32": "f4"}


@dataclass(frozen=True, eq=False)
class Shown:
    """One run as the explorer shows it.

    Attributes:
        profile: of generation queries.
        maps: of generation queries of the same run, or None.
        references: pictures as the model saw them, one for each reference, or none.
        generated: the picture made, its layers from the lowest where it has several; or none.
        title: what the run is called.
        words: one for each text token, or None where they are not known.
        layer_name: what one of several generated pictures is called.
        outlines: tokens by name.
    """

    profile: AttentionProfile
    maps: AttentionMaps | None = None
    references: tuple[Image.Image, ...] = ()
    generated: tuple[Image.Image, ...] = ()
    title: str = ""
    words: tuple[str, ...] | None = None
    layer_name: str = "layer"
    outlines: Mapping[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layout = self.profile.layout
        if self.profile.queries != "generation":
            raise InputError(
                f"The profile is of {self.profile.queries} queries; the explorer shows where the "
                'generation looks: profile with queries="generation".'
            )
        if self.references and len(self.references) != len(layout.references):
            raise InputError(
                f"{len(self.references)} reference pictures were given, and the run had "
                f"{len(layout.references)}."
            )
        if self.generated and len(self.generated) != layout.generation.layers:
            raise InputError(
                f"{len(self.generated)} generated pictures were given, and the run made "
                f"{layout.generation.layers}."
            )
        if self.words is not None and len(self.words) != layout.text:
            raise InputError(f"{len(self.words)} words were given for {layout.text} text tokens.")
        if self.maps is not None:
            _check_maps(self.profile, self.maps)


def _check_maps(profile: AttentionProfile, maps: AttentionMaps) -> None:
    if maps.queries != "generation":
        raise InputError(
            f"The maps are of {maps.queries} tokens; the explorer takes those of generation tokens."
        )
    if maps.layout != profile.layout:
        raise InputError(
            f"The maps are of a run with the layout {maps.layout.to_dict()}, the profile of one "
            f"with {profile.layout.to_dict()}; record both in the same run."
        )
    for name in AXES:
        if name in maps.data.dims:
            unknown = set(maps.data[name].values.tolist()) - set(
                profile.dataset[name].values.tolist()
            )
            if unknown:
                raise InputError(
                    f"The maps hold the {name} {spans(sorted(unknown))}, which the profile does "
                    "not; record the same in both."
                )
    check_same_run(profile.provenance, maps.provenance)


@dataclass(frozen=True, eq=False)
class Content:
    """What a page holds.

    Attributes:
        page: ready for JSON: texts, labels, pictures as data URLs, and for each array its shape,
            type and place in `arrays`.
        arrays: packed by zlib, by name.
        errors: largest errors of what is held in 8 bits, by name.
    """

    page: dict[str, Any]
    arrays: dict[str, bytes]
    errors: dict[str, float]

    @property
    def nbytes(self) -> int:
        """Bytes that arrays and pictures take in a file."""
        pictures = sum(
            len(url) for run in self.page["runs"] for url in (*run["references"], *run["generated"])
        )
        return pictures + sum(in_base64(len(each)) for each in self.arrays.values())


def in_base64(count: int) -> int:
    """Letters that so many bytes take."""
    return 4 * -(-count // 3)


def content(
    runs: Sequence[Shown], max_bytes: int = BUDGET, mean_over: Sequence[str] = ()
) -> Content:
    """Everything that a page shows of one run, or of two beside each other.

    Args:
        max_bytes: most bytes of arrays and pictures, as a file holds them.
        mean_over: ("head",) to hold scores averaged over heads.

    Raises:
        InputError: two runs that cannot be laid beside each other, or more bytes than
            ``max_bytes``; nothing is left out to make them fit.
    """
    if tuple(mean_over) not in ((), ("head",)):
        raise InputError(f'mean_over is () or ("head",), not {mean_over!r}.')
    if len(runs) == 2:
        check_comparable(*(run.profile for run in runs))
    page: dict[str, Any] = {"runs": [], "arrays": {}}
    store = _Store(page["arrays"], max_bytes)
    for run in runs:
        page["runs"].append(_described(run))
        for url in (*page["runs"][-1]["references"], *page["runs"][-1]["generated"]):
            store.take(len(url), "The pictures")
    for number, run in enumerate(runs):
        _add_profile(store, number, run, mean_over)
        _add_maps(store, number, run)
    page["errors"] = {name: float(error) for name, error in store.errors.items()}
    return Content(page, store.packed, store.errors)


def check_comparable(one: AttentionProfile, two: AttentionProfile) -> None:
    """Check that two runs can be laid beside each other with one cursor.

    Raises:
        InputError: other grids, or other steps, blocks or heads.
    """
    a, b = one.layout, two.layout
    if (a.generation, a.references) != (b.generation, b.references):
        raise InputError(
            f"The two runs have other token grids, {a.to_dict()} and {b.to_dict()}; compare runs "
            "of one size."
        )
    for name in AXES:
        first, second = (each.dataset[name].values.tolist() for each in (one, two))
        if first != second:
            raise InputError(
                f"The two runs were recorded at {name} {spans(first)} and {spans(second)}; take "
                f"the same of both, as with profile.sel({name}s=...)."
            )


class _Store:
    """Arrays packed one after another until the budget is used up."""

    def __init__(self, described: dict[str, Any], most: int) -> None:
        self.described, self.most, self.left = described, most, most
        self.packed: dict[str, bytes] = {}
        self.errors: dict[str, float] = {}

    def take(self, count: int, what: str, remedy: str = "") -> None:
        self.left -= count
        if self.left < 0:
            raise InputError(
                f"{what} do not fit into max_bytes, {memory(self.most)} for the whole page; give "
                f"a larger max_bytes{remedy}."
            )

    def add(self, name: str, array: np.ndarray, what: str, remedy: str) -> None:
        most = self.left * 3 // 4
        found = packed(array, most) if most >= 0 else None
        if found is None:
            raise InputError(
                f"{what} take {memory(array.nbytes)} before they are packed, and do not fit into "
                f"what is left of max_bytes, {memory(max(self.left, 0))} of {memory(self.most)} "
                f"for the whole page: {remedy}, or give a larger max_bytes."
            )
        self.take(in_base64(len(found)), what)
        self.packed[name] = found
        self.described[name] = {"shape": list(array.shape), "type": TYPES[array.dtype.name]}

    def add_coded(self, name: str, values: np.ndarray, what: str, remedy: str) -> None:
        # the packing looks for repeats, of which attention has few: a quarter is seldom reached
        if values.size > 16 * self.most:
            raise InputError(
                f"{what} take {memory(values.size)} in 8 bits, and max_bytes is "
                f"{memory(self.most)} for the whole page: {remedy}, or give a larger max_bytes."
            )
        found = coded(values)
        self.add(name, found.codes, what, remedy)
        self.add(f"{name}/scale", found.scales, what, remedy)
        self.errors[name] = found.error


def _add_profile(store: _Store, number: int, run: Shown, mean_over: Sequence[str]) -> None:
    profile = run.profile
    score = profile.score
    remedy = (
        "choose steps, blocks or heads with profile.sel(...), or average the heads with "
        'mean_over=("head",)'
    )
    if "head" in mean_over:
        score = score.mean("head", keepdims=True, dtype=np.float32)
    store.add_coded(f"{number}/score", score.values, "The scores of the profile", remedy)
    mass = profile.mass.sel(query_group="generation").values.astype(np.float32)
    if np.isnan(mass).any():
        raise InputError(
            "The profile holds scores alone, and the explorer shows masses as well: profile the "
            "run by itself."
        )
    store.add(f"{number}/mass", mass, "The masses of the profile", remedy)
    # a token that is not there has no share
    shares = np.nan_to_num(profile.score.values.mean(2, dtype=np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        bits = {
            "entropy": formulas.entropy_bits(shares.mean(1)),
            "block_entropy": formulas.entropy_bits(shares),
        }
    for name, values in bits.items():
        store.add(f"{number}/{name}", values.astype(np.float32), "The entropies", remedy)


def _add_maps(store: _Store, number: int, run: Shown) -> None:
    maps = run.maps
    if maps is None:
        return
    missing = [name for name in AXES if name not in maps.data.dims]
    sizes = " x ".join(
        f"{maps.data.sizes[name]:,} {'queries' if name == 'query' else f'{name}s'}"
        for name in maps.data.dims
    )
    one = memory(maps.data.sizes["query"] * maps.data.sizes["token"])
    remedy = (
        f"one step and block of all these queries, mean of the heads, takes {one}; choose a region "
        "with queries=, blocks, profile_steps and heads where the maps are recorded (or later, by "
        'maps.sel(step=..., block=..., head=..., query=...)), or average with mean_over=("head",)'
    )
    found = {"maps": maps.data, "shares": maps.shares, "text": maps.text}
    for name, array in found.items():
        if array is None:
            continue
        whole = array.expand_dims({dim: [0] for dim in missing}).transpose(*AXES, "query", ...)
        what = f"The maps ({sizes})" if name == "maps" else f"The {name} of the maps ({sizes})"
        if name == "shares":
            store.add(f"{number}/shares", whole.values.astype(np.float32), what, remedy)
        else:
            store.add_coded(f"{number}/{name}", whole.values, what, remedy)


def _described(run: Shown) -> dict[str, Any]:
    profile, maps = run.profile, run.maps
    layout, facts, dataset = profile.layout, profile.provenance, profile.dataset
    prompt = facts.get("prompt")
    found: dict[str, Any] = {
        "title": run.title,
        "layer": run.layer_name,
        "prompt": prompt if isinstance(prompt, str) else "",
        "selection": profile.selection_text(),
        "text": layout.text,
        "generation": [_grid(layout.generation)] * layout.generation.layers,
        "grids": [_grid(each) for each in layout.references],
        "placed": layout.placed,
        "step": dataset["step"].values.tolist(),
        "timestep": [round(float(each), 3) for each in dataset["timestep"].values],
        "block": dataset["block"].values.tolist(),
        "kind": dataset["block_kind"].values.tolist(),
        "head": dataset["head"].values.tolist(),
        "groups": list(GROUPS),
        "words": None if run.words is None else list(run.words),
        # a picture under tokens that stand for no place of it would mislead
        "references": [data_url(each) for each in run.references if layout.placed],
        "generated": [data_url(each) for each in run.generated],
        "outlines": [{"name": name, "tokens": each} for name, each in run.outlines.items()],
        "maps": None,
    }
    if maps is not None:
        found["maps"] = {
            "selection": maps.selection,
            "query": maps.data["query"].values.tolist(),
            **{
                name: maps.data[name].values.tolist() if name in maps.data.dims else None
                for name in AXES
            },
        }
    return found


def _grid(grid: Grid) -> list[int]:
    """Rows and columns; tokens without places are laid out as a rectangle that is nearly square."""
    if grid.placed:
        return [grid.rows, grid.columns]
    rows = next(n for n in range(math.isqrt(grid.size), 0, -1) if grid.size % n == 0)
    return [rows, grid.size // rows]


def data_url(image: Image.Image) -> str:
    """A picture as it is, in a URL."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
