"""Which reference tokens get the attention, block by block, where tokens are not a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile

WIDTH, STRIP, ROW = 6.4, 0.42, 0.2


@figure_function
def plot_importance_by_token(profile: AttentionProfile, *, axes: style.PanelAxes = None) -> Figure:
    """Score (Eq. 2 and 3) of every reference token: the mean of the blocks, and one row a block.

    Colours say how many times an equal share of the attention a token receives. Tokens stand in
    the order of their numbers; white lines part the reference images. A token that was removed in
    one of the steps is grey. Two panels: the mean, and the blocks.

    Raises:
        InputError: no token was present in all of the selected steps.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> figure = plot_importance_by_token(planted(np.arange(16.0)))
        >>> figure.axes[1].get_xlabel()
        'Reference token'
    """

    def share(part: AttentionProfile) -> np.ndarray:
        score = part.mean_score()
        return np.asarray(score / score.mean())

    indices = [int(block) for block in profile.dataset["block"]]
    mean, rows = share(profile)[None], np.stack([share(profile.sel(each)) for each in indices])
    if np.isnan(mean).all():
        raise InputError(
            "No reference token was present in all of the selected steps; select steps before "
            "tokens were removed."
        )
    highest = float(np.nanquantile(np.concatenate([mean, rows]), 0.995))
    scale = Normalize(0, max(highest, 1.5))
    tall = max(ROW * len(indices), 1.4)
    sizes = [grid.size for grid in profile.layout.references]
    bar_axes: Axes | None = None
    if axes is None:
        figure = style.chart(
            WIDTH + 1.5,
            STRIP + 0.3 + tall + 0.5,
            title="Which reference tokens the generation looks at",
            note="Attention that each reference token receives, as multiples of an equal share.",
            selection=profile.selection_text(),
            exact=True,
        )
        top = figure.place(0.6, 0, WIDTH, STRIP)
        below = figure.place(0.6, STRIP + 0.3, WIDTH, tall)
        bar_axes = figure.place(0.6 + WIDTH + 0.16, STRIP + 0.3, 0.13, min(tall, 2.4))
    else:
        top, below = style.given_axes(axes, 2)
    _strip(top, mean, scale, sizes, cbar=False)
    _strip(below, rows, scale, sizes, cbar_ax=bar_axes)
    bar = below.collections[0].colorbar
    assert bar is not None
    style.bare_bar(bar)
    bar.set_label("Times an equal share")
    top.set_ylabel("Mean", rotation=0, ha="right", va="center")
    top.set_xticks([])
    below.set(xlabel="Reference token", ylabel="Block")
    numbers = np.arange(0, sum(sizes), math.ceil(sum(sizes) / 16))
    below.set_xticks(numbers + 0.5, [str(number) for number in numbers], rotation=0)
    shown = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), 10)).round())
    below.set_yticks(shown + 0.5, [str(indices[int(place)]) for place in shown], rotation=0)
    return style.figure_of(top)


def _strip(
    axes: Axes, values: np.ndarray, scale: Normalize, sizes: Sequence[int], **bar: Any
) -> None:
    """Draw values (rows, tokens); data coordinates are (token, row)."""
    sns.heatmap(
        values,
        ax=axes,
        cmap=style.heat_colours(),
        norm=scale,
        xticklabels=False,
        yticklabels=False,
        **bar,
    )
    axes.set_facecolor(style.GREY)  # shows where there is no value
    axes.grid(False)
    for place in np.cumsum(sizes)[:-1]:
        axes.axvline(place, color=style.MARK, linewidth=1.5)
