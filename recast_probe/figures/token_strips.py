"""Which reference tokens get the attention, block by block, where tokens are no picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from recast_probe.errors import InputError
from recast_probe.figures.style import (
    GREY,
    Chart,
    bare_bar,
    chart,
    heat_colours,
    house_style,
)

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile

WIDTH, STRIP, ROW = 6.4, 0.42, 0.2


def importance_by_token(
    profile: AttentionProfile,
    *,
    blocks: Any = "all",
    steps: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
    branch: str = "conditional",
) -> Chart:
    """Score (Eq. 2 and 3) of every reference token: the mean of the blocks, and one row a block.

    Colours say how many times an equal share of the attention a token receives. Tokens stand in
    the order of their numbers; white lines part the reference images. A token that was removed in
    a selected step is grey. Raises InputError for a selection that the profile does not hold.
    """
    choice: dict[str, Any] = {"steps": steps, "heads": heads, "branch": branch}

    def share(selected: Any) -> np.ndarray:
        score = profile.mean_score(blocks=selected, **choice)
        return np.asarray(score / score.mean())

    indices = [int(block) for block in profile.select(blocks=blocks, **choice)["block"]]
    mean, rows = share(blocks)[None], np.stack([share([index]) for index in indices])
    if np.isnan(mean).all():
        raise InputError(
            "No reference token was present in all of the selected steps; select steps before "
            "tokens were removed."
        )
    highest = float(np.nanquantile(np.concatenate([mean, rows]), 0.995))
    scale = Normalize(0, max(highest, 1.5))
    tall = max(ROW * len(indices), 1.4)
    sizes = [grid.size for grid in profile.layout.references]
    with house_style():
        figure = chart(
            WIDTH + 1.5,
            STRIP + 0.3 + tall + 0.5,
            title="Which reference tokens the generation looks at",
            note="Attention that each reference token receives, as multiples of an equal share.",
            selection=profile.selection_text(blocks=blocks, **choice),
            exact=True,
        )
        top = figure.place(0.6, 0, WIDTH, STRIP)
        axes = figure.place(0.6, STRIP + 0.3, WIDTH, tall)
        bar = figure.place(0.6 + WIDTH + 0.16, STRIP + 0.3, 0.13, min(tall, 2.4))
        _strip(top, mean, scale, sizes, cbar=False)
        _strip(axes, rows, scale, sizes, cbar_ax=bar)
        bare_bar(axes.collections[0].colorbar)
        bar.set_ylabel("Times an equal share")
        top.set_ylabel("Mean", rotation=0, ha="right", va="center")
        top.set_xticks([])
        axes.set(xlabel="Reference token", ylabel="Block")
        numbers = np.arange(0, sum(sizes), math.ceil(sum(sizes) / 16))
        axes.set_xticks(numbers + 0.5, [str(number) for number in numbers], rotation=0)
        shown = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), 10)).round())
        axes.set_yticks(shown + 0.5, [str(indices[int(place)]) for place in shown], rotation=0)
    return figure


def _strip(
    axes: Axes, values: np.ndarray, scale: Normalize, sizes: Sequence[int], **bar: Any
) -> None:
    """Draw values (rows, tokens); data coordinates are (token, row)."""
    sns.heatmap(
        values,
        ax=axes,
        cmap=heat_colours(),
        norm=scale,
        xticklabels=False,
        yticklabels=False,
        **bar,
    )
    axes.set_facecolor(GREY)  # shows where there is no value
    axes.grid(False)
    for place in np.cumsum(sizes)[:-1]:
        axes.axvline(place, color="white", linewidth=1.5)
