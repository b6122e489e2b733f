"""One number for every head or block: what it does, or how it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes

from recast_probe.errors import InputError
from recast_probe.figures.style import (
    INK,
    Chart,
    agreement_colours,
    bare_bar,
    chart,
    heat_colours,
    house_style,
)

if TYPE_CHECKING:
    from recast_probe.diagnostics import CopyHeads
    from recast_probe.experiments.attribution_result import Attribution


def copying_heads(result: CopyHeads) -> Chart:
    """Mutual information of every head, with the copy heads marked."""
    return head_map(
        result.information,
        label="Bits",
        title="How much place decides where a head looks",
        note=(
            f"Mutual information of generation place and reference token, at most "
            f"{result.maximum:.1f} bits. Dots: copy heads, with {result.threshold:.0%} of it or "
            f"more and {result.least_mass:.0%} or more of their attention on the reference."
        ),
        selection=result.selection,
        marks=result.heads,
        highest=result.maximum,
    )


def attribution_map(result: Attribution, value: str = "distance") -> Chart:
    """Effect of every cut head as a heat map, or of every cut block as points with intervals.

    Args:
        value: "distance" of the latents, or "effect" on the metric. InputError for another, or for
            one that was not measured.
    """
    if value not in ("distance", "effect") or bool(np.isnan(result.data[value]).all()):
        raise InputError(f"There is no {value!r} in this attribution; choose distance or effect.")
    label = {
        "distance": "Distance of latents from the full run",
        "effect": f"Loss of {result.metric}",
    }[value]
    title = f"What each {result.over} does to the image"
    note = f"{label} when {result.edge[0]} to {result.edge[1]} is cut in this {result.over} alone."
    if result.sampled is not None:
        note = f"{label}: runs with this {result.over} cut minus runs without, in random company."
    values = result.data[value]
    if "head" in values.dims:
        return head_map(values, label=label, title=title, note=note, selection=result.selection)
    low, high = (result.data[f"{value}_{end}"].values for end in ("low", "high"))
    with house_style():
        figure = chart(
            max(4.6, 0.34 * values.size + 1.4),
            3.2,
            title=title,
            note=note,
            selection=result.selection,
        )
        axes = figure.subplots()
        blocks = values["block"].values
        axes.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        axes.vlines(blocks, low, high, color=INK, linewidth=2.4)
        axes.plot(blocks, values, "o", color=INK)
        axes.set(xlabel="Block", ylabel=label)
    return figure


def head_map(
    values: xr.DataArray,
    *,
    label: str,
    title: str,
    selection: str,
    note: str = "",
    marks: Sequence[tuple[int, int]] = (),
    highest: float | None = None,
) -> Chart:
    """Heat map of values (block, head); values below 0 make it diverge around 0.

    Args:
        marks: (block, head) to dot.
        highest: end of the scale; by default the largest value.
    """
    table = values.transpose("head", "block")
    heads, blocks = table.shape
    below = float(table.min()) < 0
    end = float(np.abs(table).max()) if highest is None else highest
    with house_style():
        figure = chart(
            float(np.clip(0.5 * blocks + 1.6, 4.6, 10)),
            float(np.clip(0.34 * heads + 0.7, 1.9, 6)),
            title=title,
            note=note,
            selection=selection,
        )
        axes = figure.subplots()
        sns.heatmap(
            np.asarray(table, float),
            ax=axes,
            cmap=agreement_colours() if below else heat_colours(),
            vmin=-end if below else 0,
            vmax=end or 1,
            linewidths=1 if blocks * heads <= 200 else 0,
            linecolor="white",
            xticklabels=False,
            yticklabels=False,
            cbar_kws={"label": label, "aspect": 18, "pad": 0.03},
        )
        bare_bar(axes.collections[0].colorbar)
        for name, place, size in (
            ("block", axes.set_xticks, blocks),
            ("head", axes.set_yticks, heads),
        ):
            every = max(1, round(size / 16))
            place(np.arange(0, size, every) + 0.5, table[name].values[::every], rotation=0)
        _mark(axes, table, marks)
        axes.tick_params(length=0)
        axes.set(xlabel="Block", ylabel="Head")
        axes.grid(False)
    return figure


def _mark(axes: Axes, table: xr.DataArray, marks: Sequence[tuple[int, int]]) -> None:
    blocks, heads = table["block"].values.tolist(), table["head"].values.tolist()
    places = [(blocks.index(block) + 0.5, heads.index(head) + 0.5) for block, head in marks]
    if places:
        x, y = zip(*places, strict=True)
        axes.plot(x, y, "o", color="white", markeredgecolor=INK, markersize=6)
