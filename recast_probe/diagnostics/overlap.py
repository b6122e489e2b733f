"""Does the attention lie on the subject? Scores against a foreground mask (Section 2.2)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from recast_probe._utils.checks import check_int
from recast_probe.blocks import Blocks
from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.inference import shifted, toroidal_shifts
from recast_probe.diagnostics.intervals import Interval
from recast_probe.diagnostics.nulls import center_prior
from recast_probe.diagnostics.results import (
    Result,
    Scores,
    Words,
    checked_fraction,
    checked_scores,
    labelled,
    mean_over,
    selected,
    selection_text,
    warn_if_nan,
)
from recast_probe.errors import InputError
from recast_probe.images.mask_values import mask_values
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile, on_grids

METRICS = (
    "mass_share",
    "enrichment",
    "precision_at_k",
    "iou_at_k",
    "auroc",
    "average_precision",
)


WITHOUT_PLACES = (
    "The reference tokens have no places in the image (those of an IP-Adapter each come from the "
    "whole of it), so no mask can be laid on them; leave the mask out."
)


@dataclass(frozen=True, repr=False)
class Overlap(Result):
    """Agreement of the mean score with a mask on the reference grid.

    Attributes:
        mass_share: share of the attention inside the mask, 0..1.
        base_rate: share of the tokens inside the mask: what an even spread gives.
        enrichment: mass_share / base_rate.
        precision_at_k, iou_at_k: of the best k tokens against the mask; ties go to the lower token
            index.
        auroc, average_precision: of the score as a detector of the mask.
        k: number of tokens in the top `fraction`.
        null: for each measure, mean and middle 95 % over toroidal shifts of the mask, of each
            reference image's own part; empty where no shift changes the mask. Shifts keep the
            mask's shape and size and lose its position: where subjects lie near the middle, a map
            that only prefers the middle beats them.
        p_value: one-sided, share of shifts with an AUROC at least as high, the unmoved mask
            counted among them; NaN without a null.
        center_auroc: AUROC of `center_prior`, a map that only prefers the middle of each image,
            against the same mask: what position alone can reach.
        other_masks_auroc: float64 (masks,), AUROC of the same score against each of the masks of
            other subjects; empty where none were given.
        block_auroc: (block,), of each block's score (mean over steps and heads).
        score, mask: (token,), the mean score, and what it was compared with; with the coordinates
            reference (which image), row and column.
        selection: what was averaged.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> profile = planted(np.arange(16.0))
        >>> rp.overlap(profile, np.arange(16) > 11).above_center
        0.75
    """

    name: ClassVar[str] = "overlap"
    title: ClassVar[str] = "Is it the subject?"
    highlights: ClassVar[tuple[str, ...]] = ("auroc", "enrichment")
    over_image: ClassVar[bool] = True
    words: ClassVar[Words] = {
        "base_rate": ("Size of the subject", "Share of the reference tokens in the mask."),
        "mass_share": (
            "Attention on the subject",
            "Share of the attention to the reference that falls on the mask.",
        ),
        "enrichment": (
            "Preference for the subject",
            "Attention on the mask compared with its size: 1 means no preference.",
            "times",
        ),
        "precision_at_k": ("Precision of the top k", "Share of the top tokens inside the mask."),
        "iou_at_k": (
            "Overlap of the top k",
            "Top tokens inside the mask, out of all that are top or masked.",
        ),
        "auroc": (
            "Subject told from background (AUROC)",
            "Chance that a token of the subject gets more attention than another; 0.5 where "
            "attention knows neither the subject nor where subjects are.",
        ),
        "average_precision": (
            "Average precision",
            "Share of subject tokens met while going down the ranking, averaged; 1 is perfect.",
        ),
        "k": ("Top tokens", "Number of reference tokens called the top.", "tokens"),
        "p_value": (
            "p-value",
            "How often a randomly shifted mask agrees as well or better; shifts keep its shape and "
            "size, and lose its position.",
        ),
        "center_auroc": (
            "AUROC of the middle alone",
            "What a map that only prefers the middle of the image would reach on the same mask.",
        ),
        "other_masks_auroc": (
            "AUROC against other subjects' masks",
            "The same attention against masks of other subjects: what position alone explains.",
        ),
    }

    mass_share: float
    base_rate: float
    enrichment: float
    precision_at_k: float
    iou_at_k: float
    auroc: float
    average_precision: float
    k: int
    null: dict[str, Interval]
    p_value: float
    center_auroc: float
    other_masks_auroc: np.ndarray
    block_auroc: xr.DataArray
    score: xr.DataArray
    mask: xr.DataArray
    selection: str

    @property
    def above_center(self) -> float:
        """AUROC minus that of a map that only prefers the middle."""
        return self.auroc - self.center_auroc

    @property
    def above_other_masks(self) -> float:
        """AUROC minus its mean against the masks of other subjects; NaN where none were given."""
        others = self.other_masks_auroc
        return self.auroc - float(others.mean()) if len(others) else math.nan

    def summary(self) -> dict[str, float]:
        found = {name: float(getattr(self, name)) for name in ("base_rate", *METRICS)}
        found |= {"k": self.k, "p_value": self.p_value, "center_auroc": self.center_auroc}
        if len(self.other_masks_auroc):
            found["other_masks_auroc"] = float(self.other_masks_auroc.mean())
        return found

    def __repr__(self) -> str:
        return (
            f"Overlap(AUROC {self.auroc:.3f}, {self.mass_share:.1%} of the attention on "
            f"{self.base_rate:.1%} of the tokens; {self.selection})"
        )


def mask_to_grid(mask: Any, grid: Grid, threshold: float = 0.5) -> np.ndarray:
    """A mask of the whole image on its token grid: tokens covered by more than `threshold`.

    Coverage is the exact mean over a token's area, also where pixels lie across its edges.

    Args:
        mask: array (height, width), bool, 0..1 or 0..255, by the rule of `mask_values`.

    Returns:
        bool (rows, columns).

    Raises:
        InputError: not two-dimensional, empty, or with values that do not say what is inside; a
            threshold outside [0, 1); tokens without places.

    Examples:
        >>> mask_to_grid(np.array([[1, 1, 0, 0], [1, 1, 0, 1]]), Grid(1, 2))
        array([[ True, False]])
    """
    if not grid.placed:
        raise InputError(WITHOUT_PLACES)
    if not 0 <= threshold < 1:
        raise InputError(f"threshold must lie from 0 to below 1, got {threshold}.")
    given = np.asanyarray(mask)
    if given.ndim != 2 or not given.size:
        raise InputError(f"A mask has the shape (height, width), got {given.shape}.")
    values = mask_values(given).astype(np.float64)
    height, width = values.shape
    covered = _shared_lengths(height, grid.rows) @ values @ _shared_lengths(width, grid.columns).T
    # whole numbers for true and false, so a token that is half covered is never rounded inside
    return covered > threshold * height * width


def overlap(
    scores: Scores,
    mask: Any,
    fraction: float = 0.25,
    *,
    blocks: Blocks = "all",
    null_draws: int = 999,
    seed: int = 0,
    other_masks: Sequence[Any] = (),
) -> Overlap:
    """Compare the mean score with a mask, and with three nulls (see `nulls`).

    They are the mask shifted around the image, a map that only prefers the middle, and masks of
    other subjects. Over several subjects, `position_control` tests against the last two.

    Args:
        scores: a profile, or an array (step, block, head, token), of which only token must be
            there; the mask must then be (rows, columns).
        mask: bool on the reference grid, (rows, columns) or flat over all reference tokens; see
            `mask_to_grid` and `Probe.reference_mask`.
        fraction: the best share of tokens for precision and IoU.
        blocks: short for ``profile.sel(blocks=blocks)``.
        other_masks: masks of other subjects on the same grid, without this subject's own.

    Raises:
        InputError: a mask of another size, with nothing or everything inside; tokens without
            places; NaN scores; fewer than 0 draws; a negative seed.

    Examples:
        >>> score = xr.DataArray([0.4, 0.1, 0.3, 0.1, 0.0, 0.1], dims="token")
        >>> found = overlap(score, np.array([[1, 0, 1], [0, 0, 0]]))
        >>> round(found.mass_share, 3), found.auroc, round(found.enrichment, 3)
        (0.7, 1.0, 2.1)
    """
    fraction = checked_fraction(fraction)
    null_draws = check_int("null_draws", null_draws, 0)
    seed = check_int("seed", seed, 0)
    scores = selected(scores, blocks)
    score = checked_scores(scores)
    grids = _grids(scores, mask)
    inside = _flat_mask(grids, mask)
    others = _other_masks(grids, other_masks)
    mean = mean_over(score, "step", "block", "head")
    middle = np.concatenate([center_prior(grid).ravel() for grid in grids])
    k = arrays.top_count(len(mean), fraction)
    observed = _measures(mean, inside[None], k)
    null_masks = _null_masks(on_grids(inside, grids), null_draws, seed)
    draws = len(null_masks)
    if null_draws and not draws:
        warnings.warn(
            "No shift changes this mask, so there is no null: its p-value is NaN.", stacklevel=2
        )
    null = _measures(mean, null_masks, k) if draws else {}
    block_auroc = arrays.auroc(mean_over(score, "step", "head"), inside)
    warn_if_nan(observed["auroc"], "All scores are equal: AUROC and the like are NaN.")
    if not np.isnan(observed["auroc"][0]):
        warn_if_nan(block_auroc, "All scores are equal in some blocks: their AUROC is NaN.")
    if observed["auroc"][0] < 0.5 < inside.mean():
        warnings.warn(
            f"The mask holds {inside.mean():.0%} of the tokens, and attention goes to the others "
            f"(AUROC {observed['auroc'][0]:.3f}). If it marks the background, give ~mask.",
            stacklevel=2,
        )
    reached = np.sum(null["auroc"] >= observed["auroc"][0]) if draws else 0
    undefined = not draws or np.isnan(observed["auroc"][0])
    return Overlap(
        **{name: float(values[0]) for name, values in observed.items()},
        base_rate=float(inside.mean()),
        k=k,
        null={name: _spread(values) for name, values in null.items()},
        p_value=np.nan if undefined else float((1 + reached) / (1 + draws)),
        center_auroc=float(arrays.auroc(middle, inside)),
        other_masks_auroc=arrays.auroc(mean, others),
        block_auroc=labelled(block_auroc, score, "block_auroc", "block"),
        score=_on_tokens(mean, grids, "score"),
        mask=_on_tokens(inside, grids, "mask"),
        selection=selection_text(scores),
    )


def _grids(scores: Scores, mask: Any) -> tuple[Grid, ...]:
    """Those of the reference images; for an array of scores it is the mask that tells."""
    if isinstance(scores, AttentionProfile):
        if not scores.layout.placed:
            raise InputError(WITHOUT_PLACES)
        return scores.layout.references
    shape = np.shape(mask)
    if len(shape) != 2 or shape[0] * shape[1] != scores.sizes["token"]:
        raise InputError(
            f"The mask has shape {shape}; for an array of scores give it as (rows, columns), one "
            f"for each of the {scores.sizes['token']} tokens."
        )
    return (Grid(*shape),)


def _on_tokens(values: np.ndarray, grids: Sequence[Grid], name: str) -> xr.DataArray:
    reference, row, column = TokenLayout(0, grids[0], tuple(grids)).reference_coordinates()
    places = {"reference": reference, "row": row, "column": column}
    return xr.DataArray(
        values, {each: ("token", place) for each, place in places.items()}, "token", name
    )


def _shared_lengths(pixels: int, tokens: int) -> np.ndarray:
    """Length that each token shares with each pixel (tokens, pixels), in 1 / (pixels * tokens)."""
    token, pixel = np.arange(tokens)[:, None] * pixels, np.arange(pixels)[None, :] * tokens
    shared = np.minimum(token + pixels, pixel + tokens) - np.maximum(token, pixel)
    return np.maximum(shared, 0).astype(np.float64)


def _null_masks(parts: list[np.ndarray], draws: int, seed: int) -> np.ndarray:
    """Shifted masks (shifts, tokens) of all images, none twice; none if no shift changes the mask.

    Images with nothing or everything inside stay, as no shift changes them.
    """
    if len(parts) == 1:
        return toroidal_shifts(parts[0], draws, seed).reshape(-1, parts[0].size)
    places = [1 if part.all() or not part.any() else part.size for part in parts]
    rng = np.random.default_rng(seed)
    chosen: dict[tuple[int, ...], None] = {}  # a set that keeps its order
    while len(chosen) < min(draws, math.prod(places) - 1):
        offset = tuple(rng.integers(places).tolist())
        if any(offset):  # leaves out the unmoved mask
            chosen[offset] = None
    offsets = np.array(list(chosen), dtype=np.int64).reshape(len(chosen), len(parts))
    moved = [shifted(part, offsets[:, i]).reshape(-1, part.size) for i, part in enumerate(parts)]
    return np.concatenate(moved, axis=1)


def _measures(score: np.ndarray, masks: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Every measure of one score (tokens,) against masks (masks, tokens)."""
    share = arrays.mass_share(score, masks)
    if np.ptp(score) == 0:
        hits = np.full(len(masks), np.nan)  # no order, no best k
    else:
        hits = (arrays.top_tokens(score, k) & masks).sum(-1).astype(np.float64)
    return {
        "mass_share": share,
        "enrichment": share / masks.mean(-1),
        "precision_at_k": hits / k,
        "iou_at_k": hits / (k + masks.sum(-1) - hits),
        "auroc": arrays.auroc(score, masks),
        "average_precision": arrays.average_precision(score, masks),
    }


def _spread(values: np.ndarray) -> Interval:
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(
        float(values.mean()), float(low), float(high), 0.95, len(values), "quantiles of the null"
    )


def _other_masks(grids: Sequence[Grid], masks: Sequence[Any]) -> np.ndarray:
    """Bool (masks, tokens)."""
    flat = np.zeros((len(masks), sum(grid.size for grid in grids)), bool)
    for place, mask in enumerate(masks):
        try:
            flat[place] = _flat_mask(grids, mask)
        except InputError as error:
            raise InputError(f"other_masks[{place}]: {error}") from None
    return flat


def _flat_mask(grids: Sequence[Grid], mask: Any) -> np.ndarray:
    values = np.asarray(mask)
    tokens = sum(grid.size for grid in grids)
    fits = values.shape == (tokens,) or (
        len(grids) == 1 and values.shape == (grids[0].rows, grids[0].columns)
    )
    if not fits:
        raise InputError(
            f"The mask has shape {values.shape}; the reference grid is "
            f"{', '.join(str(grid) for grid in grids)}. Bring an image mask onto the grid with "
            "`mask_to_grid` or `Probe.reference_mask`."
        )
    if values.dtype != bool:
        if not np.isin(values, (0, 1)).all():
            raise InputError("The mask must be true or false (or 0 and 1) for every token.")
        values = values.astype(bool)
    flat = values.reshape(-1)
    if flat.all() or not flat.any():
        state = "every" if flat.all() else "no"
        raise InputError(f"The mask has {state} token inside; there is nothing to compare.")
    return flat
