"""Attention profiles: labelled statistics of a run, with their provenance, on disk and off."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError, ProfileFileError
from recast_probe.io import atomic_path
from recast_probe.layout import GROUPS, TokenLayout

FORMAT = "recast_probe.AttentionProfile"
FORMAT_VERSION = 1
BRANCHES = ("conditional", "unconditional")
DIMENSIONS = {
    "score": ("branch", "step", "block", "head", "token"),
    "mass": ("branch", "step", "block", "head", "query_group", "key_group"),
    "conditional_entropy": ("branch", "step", "block", "head"),
}

Indices = int | Sequence[int] | None


class AttentionProfile:
    """Who attended to which reference token, per branch, step, block and head.

    Attributes:
        dataset: an xarray dataset, float32, not to be changed:
            score (branch, step, block, head, token), Eq. 2, fraction of attention;
            mass (branch, step, block, head, query_group, key_group), fraction;
            conditional_entropy (branch, step, block, head), bits, generation to reference.
            Coordinates: step (index, 0 = highest noise), timestep, sigma, block (global index),
            block_kind, head, token with row, column and reference (which image).
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        _check(dataset)
        self.dataset = dataset

    @classmethod
    def build(
        cls,
        *,
        score: np.ndarray,
        mass: np.ndarray,
        conditional_entropy: np.ndarray,
        steps: Sequence[int],
        timesteps: Sequence[float] | np.ndarray,
        sigmas: Sequence[float] | np.ndarray,
        blocks: Sequence[int],
        block_kinds: Sequence[str],
        heads: Sequence[int],
        layout: TokenLayout,
        branches: Sequence[str] = ("conditional",),
        provenance: dict[str, Any] | None = None,
    ) -> AttentionProfile:
        """Label arrays of the shapes named in the class.

        Args:
            steps, blocks, heads: which indices of the model the entries are.
            block_kinds: "double" or "single" for *every* block of the model.

        Raises:
            InputError: shapes that do not fit, or provenance that is not JSON.
        """
        reference, row, column = layout.reference_coordinates()
        kinds = [block_kinds[block] for block in blocks]
        values = {"score": score, "mass": mass, "conditional_entropy": conditional_entropy}
        try:
            attributes = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "layout": json.dumps(layout.to_dict()),
                "block_kinds": json.dumps(list(block_kinds)),
                "provenance": json.dumps(provenance or {}, ensure_ascii=False, allow_nan=False),
            }
            dataset = xr.Dataset(
                {
                    name: (DIMENSIONS[name], np.asarray(array, dtype=np.float32))
                    for name, array in values.items()
                },
                coords={
                    "branch": ("branch", np.array(branches, dtype=np.str_)),
                    "step": ("step", np.asarray(steps, dtype=np.int64)),
                    "timestep": ("step", np.asarray(timesteps, dtype=np.float64)),
                    "sigma": ("step", np.asarray(sigmas, dtype=np.float64)),
                    "block": ("block", np.asarray(blocks, dtype=np.int64)),
                    "block_kind": ("block", np.array(kinds, dtype=np.str_)),
                    "head": ("head", np.asarray(heads, dtype=np.int64)),
                    "token": ("token", np.arange(layout.reference_tokens)),
                    "row": ("token", row),
                    "column": ("token", column),
                    "reference": ("token", reference),
                    "query_group": ("query_group", np.array(GROUPS, dtype=np.str_)),
                    "key_group": ("key_group", np.array(GROUPS, dtype=np.str_)),
                },
                attrs=attributes,
            )
        except (ValueError, TypeError) as error:
            raise InputError(f"These arrays make no attention profile: {error}") from error
        return cls(dataset)

    @property
    def layout(self) -> TokenLayout:
        """Token positions of the run that was profiled."""
        return TokenLayout.from_dict(json.loads(self.dataset.attrs["layout"]))

    @property
    def block_kinds(self) -> list[str]:
        """Kind of every block of the model, recorded or not."""
        return json.loads(self.dataset.attrs["block_kinds"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, model fingerprint, settings and seed of the run."""
        return json.loads(self.dataset.attrs["provenance"])

    @property
    def score(self) -> xr.DataArray:
        """Eq. 2 scores of the conditional branch (step, block, head, token), fractions."""
        return self.dataset["score"].sel(branch="conditional")

    @property
    def mass(self) -> xr.DataArray:
        """Attention between token groups, conditional branch, fractions; rows sum to 1."""
        return self.dataset["mass"].sel(branch="conditional")

    @property
    def conditional_entropy(self) -> xr.DataArray:
        """Mean entropy of a generation token's reference distribution, conditional branch, bits."""
        return self.dataset["conditional_entropy"].sel(branch="conditional")

    def select(
        self,
        blocks: Any = "all",
        steps: Indices = None,
        heads: Indices = None,
        branch: str = "conditional",
        variable: str = "score",
    ) -> xr.DataArray:
        """The part of a variable that a selection names, without the branch dimension.

        Args:
            blocks: see `select_blocks`; groups ("single", "paper") mean those that were recorded.
            steps, heads: an index, several, or None for all that were recorded.
            variable: "score", "mass" or "conditional_entropy".

        Raises:
            InputError: something that this profile did not record.
        """
        found = self.dataset[variable]
        if branch not in found["branch"].values:
            recorded = ", ".join(str(b) for b in found["branch"].values)
            raise InputError(f"No branch {branch!r} was recorded; there is {recorded}.")
        labels = {
            "block": self._blocks(blocks),
            "step": _indices("step", steps, found["step"].values),
            "head": _indices("head", heads, found["head"].values),
        }
        found = found.sel(branch=branch)
        for name, wanted in labels.items():
            # selecting everything must not copy the array
            if not np.array_equal(wanted, found[name].values):
                found = found.sel({name: wanted})
        return found

    def mean_score(
        self,
        blocks: Any = "all",
        steps: Indices = None,
        heads: Indices = None,
        branch: str = "conditional",
    ) -> xr.DataArray:
        """Eq. 3: the mean score (token,) over the selected steps, blocks and heads, float64.

        A token that was absent in one of the steps has NaN. Arguments as in `select`.
        """
        chosen = self.select(blocks, steps, heads, branch)
        return chosen.mean(("step", "block", "head"), skipna=False, dtype=np.float64)

    def selection_text(
        self,
        blocks: Any = "all",
        steps: Indices = None,
        heads: Indices = None,
        branch: str = "conditional",
    ) -> str:
        """What a selection means here, for figures: "blocks single (2-7), steps 0-27, all heads"."""
        chosen = self.select(blocks, steps, heads, branch)
        numbers = {name: chosen[name].values.tolist() for name in ("block", "step", "head")}
        named = f"{blocks} " if isinstance(blocks, str) and blocks != "all" else ""
        spans = _spans(numbers["block"])
        parts = [
            f"{_plural('block', numbers['block'])} {f'{named}({spans})' if named else spans}",
            f"{_plural('step', numbers['step'])} {_spans(numbers['step'])}",
            "all heads"
            if heads is None
            else f"{_plural('head', numbers['head'])} {_spans(numbers['head'])}",
        ]
        return ", ".join(parts if branch == "conditional" else [*parts, f"{branch} branch"])

    def reference_map(self, values: Any) -> list[np.ndarray]:
        """Values (token,) as one (rows, columns) array per reference image."""
        flat = np.asarray(values)
        grids = self.layout.references
        if flat.shape != (sum(grid.size for grid in grids),):
            raise InputError(
                f"Expected one value for each of the {self.layout.reference_tokens} reference "
                f"tokens, got shape {flat.shape}."
            )
        parts = np.split(flat, np.cumsum([grid.size for grid in grids])[:-1])
        return [
            part.reshape(grid.rows, grid.columns) for part, grid in zip(parts, grids, strict=True)
        ]

    def save(self, path: str | Path) -> Path:
        """Write netCDF-4 (`.nc`), whole or not at all.

        Raises:
            InputError: the name does not end in .nc, or its folder does not exist.
            OSError: the disk is full or the place cannot be written; an earlier file stays.
        """
        path = Path(path)
        if path.suffix != ".nc":
            raise InputError(f"Profiles are saved as netCDF: {str(path)!r} must end in .nc.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {str(path.parent)!r} does not exist; make it first.")
        compressed = {name: {"zlib": True, "complevel": 1} for name in DIMENSIONS}
        with atomic_path(path) as temporary:
            self.dataset.to_netcdf(temporary, engine="h5netcdf", encoding=compressed)
        return path

    @classmethod
    def load(cls, path: str | Path) -> AttentionProfile:
        """Read a profile that `save` wrote.

        Raises:
            ProfileFileError: missing, damaged, foreign, or of a newer version.
        """
        path = Path(path)
        if not path.is_file():
            raise ProfileFileError(f"There is no profile file at {path}.")
        try:
            with xr.open_dataset(path, engine="h5netcdf") as opened:
                attributes = dict(opened.attrs)
                if attributes.get("format") != FORMAT:
                    raise ProfileFileError(
                        f"{path} is netCDF, but not an attention profile of recast_probe."
                    )
                if int(attributes.get("format_version", 0)) > FORMAT_VERSION:
                    raise ProfileFileError(
                        f"{path} has profile format {attributes['format_version']}, and this "
                        f"recast_probe reads up to {FORMAT_VERSION}; upgrade recast_probe."
                    )
                dataset = opened.load()
            for name, values in dataset.coords.items():
                if values.dtype.kind in "OT":
                    dataset[name] = values.astype(np.str_)
            # reading leaves how the file was stored in `encoding`; it is not part of the profile
            return cls(dataset.drop_encoding())
        except ProfileFileError:
            raise
        except InputError as error:
            raise ProfileFileError(f"{path} is damaged: {error}") from error
        except Exception as error:
            raise ProfileFileError(
                f"{path} cannot be read as an attention profile: it is damaged or not netCDF-4 "
                f"({type(error).__name__}: {error})."
            ) from error

    def identical(self, other: AttentionProfile) -> bool:
        """Same values (NaN equals NaN), types, labels and attributes."""
        same = self.dataset.identical(other.dataset)
        return same and all(
            self.dataset[name].dtype == other.dataset[name].dtype for name in self.dataset.variables
        )

    def __repr__(self) -> str:
        sizes = self.dataset.sizes
        model = self.provenance.get("model", {})
        name = model.get("name", "unknown model") if isinstance(model, dict) else model
        return (
            f"AttentionProfile({name}: {sizes['step']} steps, {sizes['block']} blocks, "
            f"{sizes['head']} heads, {sizes['token']} reference tokens)"
        )

    def _repr_html_(self) -> str:
        facts = self.provenance
        rows = {
            "recorded": self.selection_text(),
            "branches": ", ".join(str(b) for b in self.dataset["branch"].values),
            "reference grids": ", ".join(str(grid) for grid in self.layout.references),
            **{key: facts[key] for key in ("prompt", "seed", "steps", "created") if key in facts},
        }
        body = "".join(
            f"<tr><th style='text-align:left'>{html.escape(key)}</th>"
            f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
            for key, value in rows.items()
        )
        return f"<b>{html.escape(repr(self))}</b><table>{body}</table>"

    def _blocks(self, blocks: Any) -> list[int]:
        recorded = self.dataset["block"].values.tolist()
        wanted = select_blocks(blocks, self.block_kinds)
        named = [b for b in wanted if b in recorded]
        group = isinstance(blocks, str) and "." not in blocks
        if not named or (len(named) < len(wanted) and not group):
            raise InputError(
                f"blocks={blocks!r} was not recorded in this profile; it holds blocks "
                f"{_spans(recorded)}."
            )
        return named


def _indices(name: str, wanted: Indices, recorded: np.ndarray) -> list[int]:
    if wanted is None:
        return recorded.tolist()
    numbers = [wanted] if isinstance(wanted, int | np.integer) else list(wanted)
    missing = [number for number in numbers if number not in recorded]
    if missing or not numbers:
        raise InputError(
            f"{name} {missing or wanted} was not recorded in this profile; it holds "
            f"{_spans(recorded.tolist())}."
        )
    return [int(number) for number in numbers]


def _spans(numbers: Sequence[int]) -> str:
    """ "0-3, 7" for [0, 1, 2, 3, 7]."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)


def _plural(word: str, numbers: Sequence[int]) -> str:
    return word if len(numbers) == 1 else f"{word}s"


def _check(dataset: xr.Dataset) -> None:
    for name, dimensions in DIMENSIONS.items():
        if name not in dataset or dataset[name].dims != dimensions:
            raise InputError(f"A profile needs {name} with dimensions {', '.join(dimensions)}.")
        if not dataset[name].size:
            raise InputError(f"The profile's {name} is empty.")
    for name in ("timestep", "sigma", "block_kind", "row", "column", "reference"):
        if name not in dataset.coords:
            raise InputError(f"A profile needs the coordinate {name}.")
    for name in ("layout", "block_kinds", "provenance"):
        try:
            json.loads(dataset.attrs[name])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The profile's attribute {name} is missing or no JSON.") from error
    tokens = TokenLayout.from_dict(json.loads(dataset.attrs["layout"])).reference_tokens
    if tokens != dataset.sizes["token"]:
        raise InputError(
            f"The profile has {dataset.sizes['token']} tokens, but its layout has {tokens}."
        )
