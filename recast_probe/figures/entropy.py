"""How many reference tokens share the attention, over the steps and block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function

if TYPE_CHECKING:
    from recast_probe.diagnostics import Entropy


@figure_function
def plot_entropy(result: Entropy, *, axes: style.PanelAxes = None) -> Figure:
    """Marginal and conditional entropy in bits over the steps, and every block's own.

    The right-hand scale gives the same as an effective number of tokens (2 to the power of the
    bits). The dashed line is the maximum: all reference tokens attended alike. Two panels: the
    curves, and the blocks.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> figure = plot_entropy(rp.entropy(planted(np.ones((2, 1, 1, 16)))))
        >>> [panel.get_title(loc="left") for panel in figure.axes[:2]]
        ['Over the steps', 'In every block']
    """
    blocks = np.asarray(result.block_marginal["block"])
    positions, label = _steps(result.marginal)
    curves, heat = style.panels(
        axes,
        2,
        9.4,
        3.5,
        title="How widely attention spreads over the reference",
        note="Bits of entropy: one bit less means half as many tokens share the attention.",
        selection=result.selection,
        width_ratios=[1.12, 1],
    )
    marker = "o" if len(positions) <= 30 else None
    line: dict[str, Any] = {"marker": marker, "markersize": 4.5, "markeredgecolor": "white"}
    curves.axhline(result.maximum, color=style.SECONDARY, linewidth=1, linestyle=(0, (4, 3)))
    curves.text(
        0.99,
        result.maximum,
        f"Maximum, {result.maximum:.1f} bits",
        transform=curves.get_yaxis_transform(),
        ha="right",
        va="bottom",
        size=8.5,
        color=style.SECONDARY,
    )
    for values, colour, name in (
        (result.marginal, style.BLUE, "Marginal: all positions together"),
        (result.conditional, style.ORANGE, "Conditional: one position at a time"),
    ):
        if np.isnan(values).all():  # of an array of scores
            continue
        curves.plot(positions, np.asarray(values), color=colour, label=name, **line)
    lowest = np.nanmin([result.marginal.min(), result.conditional.min()])
    span = max(result.maximum - lowest, 0.5)
    lower, upper = lowest - 0.3 * span, result.maximum + 0.12 * span
    curves.set_ylim(lower, upper)
    curves.set(xlabel=label, ylabel="Entropy (bits)")
    curves.yaxis.set_major_locator(MaxNLocator(6))
    if len(positions) == 1:
        curves.set_xticks(positions)
    else:
        curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.legend(loc="lower left")
    functions: Any = (np.exp2, _bits)
    tokens = curves.secondary_yaxis("right", functions=functions)
    bits = [tick for tick in curves.get_yticks() if lower <= tick <= upper]
    tokens.set_yticks(
        np.exp2(bits),
        [f"{count:,.0f}" if count >= 10 else f"{count:.1f}" for count in np.exp2(bits)],
    )
    tokens.set_ylabel("Effective tokens")
    tokens.spines["right"].set_visible(False)
    curves.set_title("Over the steps")

    sns.heatmap(
        np.asarray(result.block_marginal.transpose("block", "step")),
        ax=heat,
        cmap=style.heat_colours(),
        vmax=result.maximum,
        xticklabels=False,
        yticklabels=False,
        cbar_kws={"label": "Entropy (bits)", "aspect": 24, "pad": 0.03},
        rasterized=True,
    )
    style.bare_bar(heat.collections[0].colorbar)
    every = max(1, round(len(blocks) / 12))
    heat.set_yticks(np.arange(0, len(blocks), every) + 0.5, blocks[::every], rotation=0)
    marks = np.unique(np.linspace(0, len(positions) - 1, min(6, len(positions))).astype(int))
    heat.set_xticks(marks + 0.5, positions[marks])
    heat.tick_params(length=0)
    heat.set(xlabel=label, ylabel="Block")
    heat.grid(False)
    heat.set_title("In every block")
    return style.figure_of(curves)


def _bits(tokens: np.ndarray) -> np.ndarray:
    return np.log2(np.maximum(tokens, 1e-12))


def _steps(values: xr.DataArray) -> tuple[np.ndarray, str]:
    """The steps of `values` (step, ...), and a label that says their timesteps where known."""
    steps, label = np.asarray(values["step"]), "Step (noise to image)"
    if "timestep" in values.coords and len(steps) > 1:
        first, last = np.asarray(values["timestep"], dtype=float)[[0, -1]]
        label = f"Step (noise to image; timestep {first:.0f} to {last:.0f})"
    return steps, label
