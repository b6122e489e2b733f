"""Attention profiles: labelled statistics of a run, with their provenance, on disk and off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from recast_probe._utils.checks import check_indices
from recast_probe._utils.markup import html_table
from recast_probe._utils.notebook_picture import maps_of, together
from recast_probe._utils.text_format import plural, spans
from recast_probe.blocks import Blocks, group_of, select_blocks
from recast_probe.errors import InputError
from recast_probe.layout import GROUPS, Grid, TokenLayout
from recast_probe.profiles.profile_file import (
    DIMENSIONS,
    FORMAT,
    FORMAT_VERSION,
    WITH_ENTROPIES,
    check_dataset,
    read_dataset,
    write_dataset,
)

Indices = int | Sequence[int] | None
"""An index, several, or None for all that were recorded."""
NAMED_BLOCKS, CHOSEN_HEADS = "selected_blocks", "selected_heads"
"""Attributes of a part of a profile: the name of its blocks' group; whether heads were chosen."""


class AttentionProfile:
    """Who attended to which reference token, per branch, step, block and head; see `sel`.

    Attributes:
        dataset: an xarray dataset, float32, not to be changed:
            score (branch, step, block, head, token), Eq. 2, fraction of attention;
            mass (branch, step, block, head, query_group, key_group), fraction;
            conditional_entropy (branch, step, block, head), bits, mean over the queries of the
            entropy of what each gives the reference; not where scores alone were recorded;
            mass_weighted_conditional_entropy (the same), each query weighted by what it gives the
            reference in all; not there either, nor in files of format 1.
            Coordinates: step (index, 0 = highest noise), timestep, sigma, block (global index),
            block_kind, head, token with row, column and reference (which image).
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        check_dataset(dataset)
        self.dataset = dataset

    @classmethod
    def build(
        cls,
        *,
        score: np.ndarray,
        mass: np.ndarray,
        conditional_entropy: np.ndarray | None = None,
        mass_weighted_conditional_entropy: np.ndarray | None = None,
        steps: Sequence[int],
        timesteps: Sequence[float] | np.ndarray,
        sigmas: Sequence[float] | np.ndarray,
        blocks: Sequence[int],
        block_kinds: Sequence[str],
        heads: Sequence[int],
        layout: TokenLayout,
        branches: Sequence[str] = ("conditional",),
        queries: str = "generation",
        provenance: dict[str, Any] | None = None,
    ) -> AttentionProfile:
        """Label arrays of the shapes named in the class.

        Args:
            conditional_entropy: None where scores alone were recorded.
            mass_weighted_conditional_entropy: None where it is not known; there is no mutual
                information then.
            steps, blocks, heads: which indices of the model the entries are.
            queries: the token group whose attention to the reference the scores are.
            block_kinds: "double" or "single" for *every* block of the model.

        Raises:
            InputError: shapes that do not fit, or provenance that is not JSON.

        Examples:
            >>> AttentionProfile.build(
            ...     score=np.full((1, 2, 3, 2, 4), 0.1),  # branch, step, block, head, token
            ...     mass=np.full((1, 2, 3, 2, 3, 3), 1 / 3),
            ...     conditional_entropy=np.ones((1, 2, 3, 2)),
            ...     steps=[0, 1], timesteps=[1000, 500], sigmas=[1, 0.5],
            ...     blocks=[0, 1, 2], block_kinds=["double", "single", "single"], heads=[0, 1],
            ...     layout=TokenLayout(3, Grid(2, 2), (Grid(2, 2),)),
            ... )
            AttentionProfile(unknown model: 2 steps, 3 blocks, 2 heads, 4 reference tokens)
        """
        reference, row, column = layout.reference_coordinates()
        values = {
            "score": score,
            "mass": mass,
            "conditional_entropy": conditional_entropy,
            "mass_weighted_conditional_entropy": mass_weighted_conditional_entropy,
        }
        version = FORMAT_VERSION if conditional_entropy is None else WITH_ENTROPIES
        try:
            if min(blocks, default=0) < 0:
                raise ValueError(f"block indices start at 0, got {list(blocks)}")
            kinds = [block_kinds[block] for block in blocks]
            attributes = {
                "format": FORMAT,
                "format_version": version,
                "layout": json.dumps(layout.to_dict()),
                "block_kinds": json.dumps(list(block_kinds)),
                "queries": queries,
                "provenance": json.dumps(provenance or {}, allow_nan=False),
            }
            dataset = xr.Dataset(
                {
                    name: (DIMENSIONS[name], np.asarray(array, dtype=np.float32))
                    for name, array in values.items()
                    if array is not None
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
        except (ValueError, TypeError, IndexError) as error:
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
    def queries(self) -> str:
        """The token group whose attention to the reference was read: "generation" for Eq. 2."""
        return str(self.dataset.attrs.get("queries", "generation"))

    @property
    def branch(self) -> str:
        """The guidance branch that `score` is of: the conditional one where it was recorded."""
        recorded = self.dataset["branch"].values.tolist()
        return "conditional" if "conditional" in recorded else str(recorded[0])

    @property
    def score(self) -> xr.DataArray:
        """Eq. 2 scores of `branch`, (step, block, head, token), fractions."""
        return self.variable("score")

    @property
    def mass(self) -> xr.DataArray:
        """Attention between token groups, of `branch`, fractions; rows sum to 1."""
        return self.variable("mass")

    @property
    def conditional_entropy(self) -> xr.DataArray:
        """Mean entropy of a query token's reference distribution, of `branch`, bits."""
        return self.variable("conditional_entropy")

    def variable(self, name: str) -> xr.DataArray:
        """A variable of `branch`, without the branch dimension.

        Args:
            name: "score", "mass", "conditional_entropy" or "mass_weighted_conditional_entropy".

        Raises:
            InputError: something that this profile does not hold.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> planted(np.ones(16)).variable("mass").dims
            ('step', 'block', 'head', 'query_group', 'key_group')
        """
        if name not in self.dataset:
            raise InputError(
                f"This profile holds no {name}; it holds "
                f"{', '.join(map(str, self.dataset.data_vars))}. Runs that only rank tokens record "
                "scores alone, and earlier versions recorded less: profile the run by itself to "
                "have it."
            )
        return self.dataset[name].sel(branch=self.branch)

    def sel(
        self,
        blocks: Blocks | None = None,
        steps: Indices = None,
        heads: Indices = None,
        branch: str | None = None,
    ) -> AttentionProfile:
        """The part of the profile that is named, as a profile: select first, then diagnose.

        What is None stays as it is. Selecting twice narrows further. A part can be saved, and says
        in its `selection_text` what was chosen. Selecting everything copies no array.

        Args:
            blocks: see `select_blocks`; groups ("single", "paper") mean those that were recorded.
            steps, heads: an index, or several.
            branch: a guidance branch, such as "unconditional".

        Raises:
            InputError: something that this profile did not record.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> score = np.full((2, 3, 2, 16), 0.1)  # step, block, head, token
            >>> part = planted(score).sel(blocks="single", steps=0)
            >>> part.selection_text()
            'blocks single (1-2), step 0, all heads'
            >>> part.sel(heads=1).score.shape
            (1, 2, 1, 16)
        """
        dataset, said = self.dataset, {}
        if branch is not None:
            recorded = dataset["branch"].values.tolist()
            if branch not in recorded:
                raise InputError(
                    f"No branch {branch!r} was recorded; there is {', '.join(recorded)}."
                )
            place = recorded.index(branch)
            dataset = dataset.isel(branch=slice(place, place + 1))
        if blocks is not None and not (isinstance(blocks, str) and blocks == "all"):
            said[NAMED_BLOCKS] = group_of(blocks, self.block_kinds)
        if heads is not None:
            said[CHOSEN_HEADS] = "yes"
        labels = {
            "block": self._blocks(blocks),
            "step": check_indices("steps", steps, dataset["step"].values, of="recorded steps"),
            "head": check_indices("heads", heads, dataset["head"].values, of="recorded heads"),
        }
        for name, wanted in labels.items():
            # selecting everything must not copy the arrays
            if not np.array_equal(wanted, dataset[name].values):
                dataset = dataset.sel({name: wanted})
        return AttentionProfile(dataset.assign_attrs(said))

    def mean_score(self, blocks: Blocks = "all") -> xr.DataArray:
        """Eq. 3: the mean score (token,) over the steps, blocks and heads, float64.

        A token that was absent in one of the steps has NaN. `blocks` is short for
        ``sel(blocks=blocks)``, which raises what cannot be chosen.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> planted(np.arange(16.0)).mean_score().values[:3]
            array([0., 1., 2.])
        """
        score = self.sel(blocks, branch=self.branch).score
        return score.mean(("step", "block", "head"), skipna=False, dtype=np.float64)

    def selection_text(self, blocks: Blocks = "all") -> str:
        """What the profile is of, in words: "blocks single (2-7), steps 0-27, all heads".

        `blocks` is short for ``sel(blocks=blocks)``.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> planted(np.ones((2, 3, 2, 16))).selection_text()
            'blocks 0-2, steps 0-1, all heads'
        """
        dataset = self.sel(blocks, branch=self.branch).dataset
        numbers = {name: dataset[name].values.tolist() for name in ("block", "step", "head")}
        named, found = dataset.attrs.get(NAMED_BLOCKS), spans(numbers["block"])
        every_head = CHOSEN_HEADS not in dataset.attrs and numbers["head"] == list(
            range(len(numbers["head"]))
        )
        parts = [
            f"{plural('block', numbers['block'])} {f'{named} ({found})' if named else found}",
            f"{plural('step', numbers['step'])} {spans(numbers['step'])}",
            "all heads"
            if every_head
            else f"{plural('head', numbers['head'])} {spans(numbers['head'])}",
        ]
        if self.branch != "conditional":
            parts.append(f"{self.branch} branch")
        if self.queries != "generation":
            parts.append(f"attention from {self.queries} tokens")
        return ", ".join(parts)

    def reference_map(self, values: Any) -> list[np.ndarray]:
        """Values (token,) as one (rows, columns) array per reference image; see `on_grids`.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> profile = planted(np.ones(16))
            >>> [each.shape for each in profile.reference_map(profile.mean_score())]
            [(4, 4)]
        """
        return on_grids(values, self.layout.references)

    def save(self, path: str | Path) -> Path:
        """Write netCDF-4 (`.nc`), whole or not at all.

        Raises:
            InputError: the name does not end in .nc, or its folder does not exist.
            OSError: the disk is full or the place cannot be written; an earlier file stays.

        Examples:
            >>> import tempfile
            >>> from recast_probe.testing.planted_profiles import planted
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     path = planted(np.ones(16)).save(f"{folder}/fox.nc")
            ...     AttentionProfile.load(path).score.sizes["token"]
            16
        """
        path = Path(path)
        if path.suffix != ".nc":
            raise InputError(f"Profiles are saved as netCDF: {str(path)!r} must end in .nc.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {str(path.parent)!r} does not exist; make it first.")
        return write_dataset(path, self.dataset)

    @classmethod
    def load(cls, path: str | Path) -> AttentionProfile:
        """Read a profile that `save` wrote; see the example there.

        Raises:
            ProfileFileError: missing, damaged, foreign, or of a newer version.
        """
        return cls(read_dataset(path))

    def identical(self, other: AttentionProfile) -> bool:
        """Same values (NaN equals NaN), types, labels and attributes.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> planted(np.ones(16)).identical(planted(np.ones(16)))
            True
        """
        same = self.dataset.identical(other.dataset)
        return same and all(
            self.dataset[name].dtype == other.dataset[name].dtype for name in self.dataset.variables
        )

    def __repr__(self) -> str:
        sizes = self.dataset.sizes
        model = self.provenance.get("model", {})
        name = model.get("name", "unknown model") if isinstance(model, dict) else model
        other = "" if self.queries == "generation" else f", attention from {self.queries} tokens"
        if "conditional_entropy" not in self.dataset:
            other += ", scores alone"
        return (
            f"AttentionProfile({name}: {sizes['step']} steps, {sizes['block']} blocks, "
            f"{sizes['head']} heads, {sizes['token']} reference tokens{other})"
        )

    def _repr_html_(self) -> str:
        facts, wanted = self.provenance, ("prompt", "seed", "steps", "created")
        rows: dict[str, Any] = {
            "recorded": self.selection_text(),
            "branches": ", ".join(str(b) for b in self.dataset["branch"].values),
            "reference grids": ", ".join(str(grid) for grid in self.layout.references),
            **{key: facts[key] for key in wanted if key in facts},
        }
        table = html_table(repr(self), rows.items())
        if not self.layout.placed:
            return table
        grids = self.reference_map(self.mean_score())
        return together(maps_of(grids, "attention to the reference, mean"), table)

    def _blocks(self, blocks: Blocks | None) -> list[int]:
        recorded = self.dataset["block"].values.tolist()
        if blocks is None:
            return recorded
        wanted = select_blocks(blocks, self.block_kinds)
        named = [b for b in wanted if b in recorded]
        group = isinstance(blocks, str) and "." not in blocks
        if not named or (len(named) < len(wanted) and not group):
            raise InputError(
                f"blocks={blocks!r} was not recorded; this profile holds blocks {spans(recorded)}."
            )
        return named


def on_grids(values: Any, grids: Sequence[Grid]) -> list[np.ndarray]:
    """Values (token,) as one (rows, columns) array per grid.

    Raises:
        InputError: another number of values.
    """
    flat, sizes = np.asarray(values), [grid.size for grid in grids]
    if flat.shape != (sum(sizes),):
        raise InputError(
            f"Expected one value for each of the {sum(sizes)} reference tokens, got shape "
            f"{flat.shape}."
        )
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [part.reshape(grid.rows, grid.columns) for part, grid in zip(parts, grids, strict=True)]
