"""What every diagnostic's result can do, and the checks that come before every diagnostic."""

from __future__ import annotations

import importlib
import io
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import xarray as xr

from recast_probe._utils.markup import html_table
from recast_probe._utils.notebook_picture import html_png, together
from recast_probe._utils.text_format import plural, spans
from recast_probe.blocks import Blocks
from recast_probe.errors import InputError
from recast_probe.files.atomic import without_nan
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.profiles.profile_input import as_profile

SCREEN, WIDE = 80, 640  # dots per inch, and pixels, of a figure beside the numbers in a notebook
DIMENSIONS = ("step", "block", "head", "token")
Scores = AttentionProfile | xr.DataArray
"""A profile, or its scores alone: an array with some of `DIMENSIONS`, "token" among them."""


@dataclass(frozen=True)
class Number:
    """A key number: what it is called, its value, and what it means in plain words.

    Examples:
        >>> Number("gini", 0.4, "Gini").value
        0.4
    """

    name: str = ""
    value: float | int | str | None = None
    label: str = ""
    explanation: str = ""
    unit: str = ""


Words = Mapping[str, tuple[str, ...]]
"""Label, explanation and, where there is one, unit of numbers by their names."""


class Result:
    """Base of the results, which are frozen dataclasses of numbers and labelled arrays.

    A result carries its labels and explanations, which reports, the command line and notebooks
    share.

    Attributes:
        name: its key in stored numbers, and that of its figure, ``figures.plot_<name>``.
        title: the question that it answers, as a heading.
        highlights: names of the numbers that a report shows first.
        words: what its numbers mean.
        over_image: its figure takes the reference image, ``plot(image=...)``.
        selection: what was averaged.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> found = rp.skew(planted(np.ones(16)))
        >>> isinstance(found, Result), round(found.summary()["top_share_of_mean_score"], 3)
        (True, 0.25)
    """

    name: ClassVar[str]
    title: ClassVar[str]
    words: ClassVar[Words]
    highlights: ClassVar[tuple[str, ...]] = ()
    over_image: ClassVar[bool] = False
    selection: str

    def summary(self) -> dict[str, float]:
        """The headline numbers by name."""
        raise NotImplementedError

    def numbers(self) -> list[Number]:
        """The headline numbers with their words."""
        return [Number(name, value, *self.words[name]) for name, value in self.summary().items()]

    def highlighted(self) -> dict[str, Number]:
        """The numbers that a report shows first, by name."""
        known = {each.name: each for each in self.numbers()}
        return {name: known[name] for name in self.highlights}

    def to_dict(self) -> dict[str, Any]:
        """The selection and the headline numbers, for JSON; None where one is not defined.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> rp.skew(planted(np.ones(16))).to_dict()["selection"]
            'block 0, step 0, all heads'
        """
        return without_nan({"selection": self.selection, **self.summary()})

    def to_dataframe(self) -> pd.DataFrame:
        """One row a headline number, by name: value, label, explanation and unit."""
        return pd.DataFrame([asdict(each) for each in self.numbers()]).set_index("name")

    def to_dataset(self) -> xr.Dataset:
        """All arrays and numbers, those of intervals with their part's name behind the field's.

        Headline numbers that are not fields are variables too, with their words as attributes.
        """
        found = dict(_flat("", self))
        for each in self.numbers():
            if np.ndim(found.get(each.name, 0)) == 0:
                words = {"long_name": each.label, "description": each.explanation}
                found[each.name] = xr.DataArray(each.value, attrs=words | {"units": each.unit})
        return xr.Dataset(found, attrs={"result": self.name, "selection": self.selection})

    def plot(self, *, axes: Any = None, **options: Any) -> Any:
        """Draw the figure of this result, ``figures.plot_<name>``.

        Args:
            axes: where to draw; see `recast_probe.figures`. None makes a figure.
            options: those of the figure.

        Returns:
            The matplotlib Figure.

        Raises:
            InputError: a result without a figure.
        """
        # by name, as figures lie above diagnostics
        figures = importlib.import_module("recast_probe.figures")
        draw = getattr(figures, f"plot_{self.name}", None)
        if draw is None:
            raise InputError(f"There is no figure of {self.name}; see its summary().")
        return draw(self, axes=axes, **options)

    def _repr_html_(self) -> str:
        rows = [
            (number.label, f"{number.value:.4g} {number.unit}".strip(), number.explanation)
            for number in self.numbers()
        ]
        table = html_table(f"{type(self).__name__}, {self.selection}", rows)
        figures = importlib.import_module("recast_probe.figures")
        if not hasattr(figures, f"plot_{self.name}"):
            return table
        buffer = io.BytesIO()
        self.plot().savefig(buffer, format="png", dpi=SCREEN)
        return together(html_png(buffer.getvalue(), self.title, WIDE), table)


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The numbers and arrays in a value, by the names of the fields that lead to them."""
    inside: Mapping[str, Any] = {}
    if isinstance(value, xr.DataArray | bool | int | float | np.number):
        yield name, value
    elif isinstance(value, np.ndarray):
        yield name, (tuple(f"{name}_{axis}" for axis in range(value.ndim)), value)
    elif isinstance(value, xr.Dataset):
        inside = {str(each): array for each, array in value.data_vars.items()}
    elif isinstance(value, Mapping):
        inside = {f"{name}_{key}": each for key, each in value.items()}
    elif is_dataclass(value):
        before = f"{name}_" if name else ""
        inside = {f"{before}{each.name}": getattr(value, each.name) for each in fields(value)}
    for each, part in inside.items():
        yield from _flat(each, part)


def selected(scores: Scores, blocks: Blocks) -> Scores:
    """These blocks of a profile, of its one branch; an array as it is.

    Raises:
        InputError: blocks that were not recorded; a choice among those of an array.
    """
    scores = scores_given(scores)
    if isinstance(scores, AttentionProfile):
        return scores.sel(blocks, branch=scores.branch)
    if not (isinstance(blocks, str) and blocks == "all"):
        raise InputError(
            f"blocks={blocks!r} chooses among the blocks of a profile; of an array, give the part "
            "that is meant, such as scores.sel(block=[2, 3])."
        )
    return scores


def scores_given(scores: Any) -> Scores:
    """A profile or an array as it is, and the profile of a run; see `as_profile`.

    Raises:
        InputError: a plain array, which has no dimensions' names; nothing that has scores.
    """
    if isinstance(scores, np.ndarray):
        raise _no_scores(scores)
    return scores if isinstance(scores, xr.DataArray) else as_profile(scores)


def _no_scores(given: object) -> InputError:
    return InputError(
        "Give an AttentionProfile, or an xarray.DataArray of scores with the dimensions "
        f"{', '.join(DIMENSIONS)} or some of them, not {type(given).__name__}."
    )


def checked_scores(scores: Scores) -> xr.DataArray:
    """The scores as (step, block, head, token), without NaN; what an array lacks has the size 1.

    Raises:
        InputError: neither a profile nor an array of scores; tokens that were absent in a selected
            step, infinite scores, or scores below zero.
    """
    if isinstance(scores, AttentionProfile):
        score = scores.score
    elif isinstance(scores, xr.DataArray):
        if "token" not in scores.dims or not set(scores.dims) <= set(DIMENSIONS):
            raise InputError(
                f"Scores have the dimension token, and any of step, block and head, not "
                f"{scores.dims}."
            )
        lacking = [name for name in DIMENSIONS if name not in scores.dims]
        score = scores.expand_dims(lacking).transpose(*DIMENSIONS)
    else:
        raise _no_scores(scores)
    if not score.size:
        raise InputError(f"There are no scores: their shape is {score.shape}.")
    lowest, highest = float(score.min(skipna=False)), float(score.max(skipna=False))
    if np.isnan(lowest):
        raise InputError(
            "Some selected scores are NaN: tokens were pruned in those steps. Choose steps with "
            "the full reference, profile.sel(steps=...)."
        )
    if lowest < 0:
        raise InputError(f"Attention scores cannot be negative; the lowest is {lowest:.3g}.")
    if np.isinf(highest):
        raise InputError("Some selected scores are infinite; attention scores lie between 0 and 1.")
    return score


def selection_text(scores: Scores) -> str:
    """What scores are of, in words: `AttentionProfile.selection_text`, or an array's labels."""
    if isinstance(scores, AttentionProfile):
        return scores.selection_text()
    parts = []
    for name in ("block", "step", "head"):
        if name in scores.coords:
            numbers = np.atleast_1d(scores[name].values).tolist()
            parts.append(f"{plural(name, numbers)} {spans(numbers)}")
        elif name in scores.dims:
            parts.append(f"{scores.sizes[name]} {plural(name, range(scores.sizes[name]))}")
    return ", ".join(parts) or f"scores of {scores.sizes['token']} tokens"


def checked_fraction(fraction: float) -> float:
    """A top share of tokens. Raises InputError outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must lie above 0 and up to 1, got {fraction}.")
    return float(fraction)


def mean_over(values: xr.DataArray, *dimensions: str) -> np.ndarray:
    """Mean in float64 over the named dimensions, as a plain array; NaN if any part of it is."""
    return values.mean(dimensions, skipna=False, dtype=np.float64).values


def head_mean(score: xr.DataArray) -> np.ndarray:
    """Scores (step, block, token), averaged over heads in float64; of one head they are as stored,
    which is the same number and half the memory."""
    return score.values[:, :, 0] if score.sizes["head"] == 1 else mean_over(score, "head")


def labelled(values: np.ndarray, like: xr.DataArray, name: str, *dimensions: str) -> xr.DataArray:
    """Values with the labels that `like` has along the named dimensions."""
    rest: dict[Any, int] = {each: 0 for each in like.dims if each not in dimensions}
    return like.isel(rest, drop=True).copy(data=values).rename(name)


def warn_if_nan(values: np.ndarray | float, why: str) -> None:
    """A visible warning for an undefined result."""
    if np.isnan(values).any():
        warnings.warn(why, stacklevel=3)
