"""Does the attention lie on the subject: a score map against the subject's mask."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function
from recast_probe.figures.overlay import draw_map

if TYPE_CHECKING:
    from recast_probe.diagnostics import Overlap

METRICS = {
    "auroc": "AUROC",
    "average_precision": "Average precision",
    "precision_at_k": "Precision at k",
    "iou_at_k": "IoU at k",
    "mass_share": "Attention on the mask",
}


@figure_function
def plot_overlap(
    result: Overlap,
    image: Image.Image | None = None,
    *,
    reference: int = 0,
    axes: style.PanelAxes = None,
) -> Figure:
    """Score map with the mask's outline, the agreement beside its null, and AUROC by block.

    A grey bar is the interval in which the number lies when the mask is shifted at random, which
    keeps its shape and size and loses its position; the note says what position alone reaches.
    Three panels.

    Args:
        image: laid under the map.
        reference: which of several reference images.

    Raises:
        InputError: an unknown reference image.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> figure = plot_overlap(rp.overlap(planted(np.arange(16.0)), np.arange(16) > 11))
        >>> len(figure.axes)
        3
    """
    score, mask = (_on_grid(values, reference) for values in (result.score, result.mask))
    blocks = np.asarray(result.block_auroc["block"])
    picture, metrics, by_block = style.panels(
        axes,
        3,
        10.2,
        3.1,
        title="Does the attention lie on the subject?",
        note=f"The mask covers {result.base_rate:.0%} of the reference and receives "
        f"{result.mass_share:.0%} of the attention ({result.enrichment:.1f} times its share). "
        f"k = {result.k} tokens."
        + ("" if np.isnan(result.p_value) else f" AUROC p = {result.p_value:.2g}, by shifts.")
        + _position(result),
        selection=result.selection,
        width_ratios=[1, 1.1, 1],
    )

    draw_map(picture, score, image, Normalize(0, float(np.nanmax(score))))
    for start, end in outline(mask):
        picture.plot(*zip(start, end, strict=True), color=style.MARK, linewidth=1.8)
    picture.set_anchor("W")
    picture.set_title("Score, with the mask's outline")

    for place, key in enumerate(METRICS):
        observed = float(getattr(result, key))
        null = result.null.get(key)
        if null is not None:
            metrics.plot(
                [null.low, null.high],
                [place, place],
                color=style.HAIRLINE,
                linewidth=9,
                solid_capstyle="butt",
            )
            metrics.plot([null.mean], [place], "|", color=style.GREY, markersize=9, zorder=3)
        metrics.plot([observed], [place], "o", color=style.BLUE, markersize=8, zorder=4)
        defined = np.isfinite(observed)
        metrics.annotate(
            f"{observed:.2f}" if defined else "not defined",
            (observed if defined else 0.5, place),
            xytext=(0, 8),
            textcoords="offset points",
            ha="center",
            size=8.5,
            weight="bold",
            color=style.INK,
        )
    metrics.set(xlim=(-0.02, 1.06), ylim=(len(METRICS) - 0.4, -0.7))
    metrics.set_yticks(range(len(METRICS)), list(METRICS.values()))
    metrics.tick_params(axis="y", labelcolor=style.INK)
    metrics.grid(True, axis="x")
    metrics.grid(False, axis="y")
    metrics.spines["left"].set_visible(False)
    metrics.set_xlabel("Blue: measured. Grey: with shifted masks.")
    metrics.set_title("Agreement")

    values = np.asarray(result.block_auroc, dtype=float)
    by_block.axhline(0.5, color=style.SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
    by_block.vlines(range(len(blocks)), 0.5, values, color=style.HAIRLINE, linewidth=1.4)
    by_block.plot(range(len(blocks)), values, "o", color=style.GREEN, markersize=5.5)
    every = max(1, round(len(blocks) / 10))
    by_block.set_xticks(range(0, len(blocks), every), blocks[::every])
    by_block.set(xlabel="Block", ylabel="AUROC (0.5: no order)", ylim=(0, 1.02))
    by_block.set_title("In every block")
    return style.figure_of(picture)


def _on_grid(values: xr.DataArray, reference: int) -> np.ndarray:
    """Values (token,) of one reference image as (rows, columns)."""
    here = values[values["reference"].values == reference]
    if not here.size:
        count = int(values["reference"].max()) + 1
        raise InputError(f"reference is {reference}; the result is of {count} reference images.")
    return here.values.reshape(int(here["row"].max()) + 1, -1)


def _position(result: Overlap) -> str:
    """What the middle of the image, and masks of other subjects, reach."""
    text = f" The middle alone has an AUROC of {result.center_auroc:.2f}"
    if len(result.other_masks_auroc):
        text += f"; masks of other subjects give {result.other_masks_auroc.mean():.2f}"
    return f"{text}."


def outline(mask: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Edges (start, end), each point (column, row), between marked and unmarked grid cells."""
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    edges = []
    for row, column in zip(*np.nonzero(padded[:, 1:] != padded[:, :-1]), strict=True):
        edges.append(((int(column), int(row) - 1), (int(column), int(row))))
    for row, column in zip(*np.nonzero(padded[1:] != padded[:-1]), strict=True):
        edges.append(((int(column) - 1, int(row)), (int(column), int(row))))
    return edges
