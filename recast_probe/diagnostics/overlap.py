"""Does the attention lie on the subject? Scores against a foreground mask (Section 2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image

from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.inference import Interval, toroidal_shifts
from recast_probe.diagnostics.results import Result, checked_scores, mean_over, warn_if_nan
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.profile import AttentionProfile, Indices

METRICS = (
    "mass_share",
    "enrichment",
    "precision_at_k",
    "iou_at_k",
    "auroc",
    "average_precision",
)


@dataclass(frozen=True, repr=False)
class Overlap(Result):
    """Agreement of the mean score with a mask on the reference grid.

    Attributes:
        mass_share: share of the attention inside the mask, 0..1.
        base_rate: share of the tokens inside the mask: what chance gives.
        enrichment: mass_share / base_rate.
        precision_at_k, iou_at_k: of the best k tokens against the mask.
        auroc, average_precision: of the score as a detector of the mask.
        k: tokens of the asked fraction.
        null: for each measure, mean and middle 95 % over toroidal shifts of the mask.
        p_value: one-sided, share of shifts with an AUROC at least as high.
        block_auroc: (block,), of each block's score (mean over steps and heads).
        selection: what was averaged.
    """

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
    block_auroc: xr.DataArray
    selection: str

    def summary(self) -> dict[str, float]:
        found = {name: float(getattr(self, name)) for name in ("base_rate", *METRICS)}
        return found | {"k": self.k, "p_value": self.p_value}

    def __repr__(self) -> str:
        return (
            f"Overlap(AUROC {self.auroc:.3f}, {self.mass_share:.1%} of the attention on "
            f"{self.base_rate:.1%} of the tokens; {self.selection})"
        )


def mask_to_grid(mask: Any, grid: Grid, threshold: float = 0.5) -> np.ndarray:
    """A mask of the whole image on its token grid: tokens covered by more than `threshold`.

    Args:
        mask: array (height, width), bool or 0..1 (or 0..255 if it has values above 1).

    Returns:
        bool (rows, columns).

    Raises:
        InputError: not two-dimensional, empty, or with values that are not finite.
    """
    values: np.ndarray = np.asarray(mask, dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise InputError(f"A mask has the shape (height, width), got {values.shape}.")
    if not np.isfinite(values).all():
        raise InputError("The mask has values that are not finite.")
    if values.max() > 1:
        values = values / 255
    picture = Image.fromarray(values, mode="F")
    covered = picture.resize((grid.columns, grid.rows), Image.Resampling.BOX)
    return np.asarray(covered) > threshold


def overlap(
    profile: AttentionProfile,
    mask: Any,
    fraction: float = 0.25,
    *,
    blocks: Any = "all",
    steps: Indices = None,
    heads: Indices = None,
    branch: str = "conditional",
    null_draws: int = 999,
    seed: int = 0,
) -> Overlap:
    """Compare the mean score with a mask, and with the mask shifted around the image.

    Args:
        mask: bool on the reference grid, (rows, columns) or flat over all reference tokens; see
            `mask_to_grid` and `Probe.reference_mask`.
        fraction: the best share of tokens for precision and IoU.

    Raises:
        InputError: a mask of another size, with nothing or everything inside; NaN scores.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must lie above 0 and up to 1, got {fraction}.")
    score = checked_scores(profile, blocks, steps, heads, branch)
    inside = _flat_mask(profile, mask)
    mean = mean_over(score, "step", "block", "head")
    k = arrays.top_count(len(mean), fraction)
    observed = _measures(mean, inside[None], k)
    shifted = [
        toroidal_shifts(part, null_draws, seed).reshape(-1, part.size)
        for part in profile.reference_map(inside)
    ]
    draws = min(len(part) for part in shifted)
    null_masks = np.concatenate([part[:draws] for part in shifted], axis=1)
    null = _measures(mean, null_masks, k) if draws else {}
    warn_if_nan(observed["auroc"], "All scores are equal: AUROC and the like are NaN.")
    reached = np.sum(null["auroc"] >= observed["auroc"][0]) if draws else 0
    undefined = not draws or np.isnan(observed["auroc"][0])
    per_block = mean_over(score, "step", "head")
    return Overlap(
        **{name: float(values[0]) for name, values in observed.items()},
        base_rate=float(inside.mean()),
        k=k,
        null={name: _spread(values) for name, values in null.items()},
        p_value=np.nan if undefined else float((1 + reached) / (1 + draws)),
        block_auroc=score.isel(step=0, head=0, token=0, drop=True).copy(
            data=arrays.auroc(per_block, inside)
        ),
        selection=profile.selection_text(blocks, steps, heads, branch),
    )


def _measures(score: np.ndarray, masks: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """Every measure of one score (tokens,) against masks (masks, tokens)."""
    share = (score * masks).sum(-1) / score.sum() if score.sum() else np.full(len(masks), np.nan)
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
    return Interval(float(values.mean()), float(low), float(high), 0.95, len(values))


def _flat_mask(profile: AttentionProfile, mask: Any) -> np.ndarray:
    values = np.asarray(mask)
    grids = profile.layout.references
    tokens = profile.layout.reference_tokens
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
