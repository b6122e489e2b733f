"""Scores over the strength of the attention to a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recast_probe.figures import style

if TYPE_CHECKING:
    from recast_probe.studies.dose_response import DoseResponse


@style.house_style()
def plot_dose_response(result: DoseResponse, *, axes: style.PanelAxes = None) -> Figure:
    """Differences to the run as it is, by factor, one panel a score; dotted: no reference.

    Examples:
        >>> import pandas as pd
        >>> from recast_probe.studies.dose_response import Dose, DoseResponse
        >>> scores = {"full": 0.8, "none": 0.2, "reference bias 0.5": 0.6}
        >>> rows = [
        ...     {"subject": subject, "prompt": "in snow", "arm": arm, "identity": score * share}
        ...     for subject, share in (("fox", 1.0), ("hen", 0.9))
        ...     for arm, score in scores.items()
        ... ]
        >>> doses = (Dose("reference", "bias", 0.5), Dose("reference", "bias", 1))
        >>> figure = plot_dose_response(DoseResponse(pd.DataFrame(rows), doses, "two subjects"))
        >>> figure.axes[0].get_xlabel()
        'Factor'
    """
    measures = result.measures
    panels = style.panels(
        axes,
        len(measures),
        4.6 * len(measures) + 1.4,
        3.6,
        title="How identity follows the strength of the reference",
        note=(
            "Mean difference to the run as it is (factor 1), with paired 95 % intervals over "
            "subjects. Dotted: the run without a reference."
        ),
        selection=result.selection,
    )
    factors = sorted({dose.factor for dose in result.doses} | {1.0})
    # 0 has no place on a logarithmic axis, so factors stand at equal distances
    places = {factor: place for place, factor in enumerate(factors)}
    for panel, measure in zip(panels, measures, strict=True):
        _draw(panel, result, measure, places)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
    return style.figure_of(panels[0])


def _draw(axes: Axes, result: DoseResponse, measure: str, places: dict[float, int]) -> None:
    colours = dict(zip(result.lines, [*style.PALETTE, *style.MORE] * 2, strict=False))
    shift = np.linspace(-0.12, 0.12, len(colours)) if len(colours) > 1 else [0.0]
    for beside, (group, mode) in zip(shift, result.lines, strict=True):
        curve, colour = result.curve(measure, group, mode), colours[group, mode]
        at = np.array([places[float(factor)] for factor in curve.index]) + beside
        axes.vlines(at, curve["low"], curve["high"], color=colour, linewidth=2)
        axes.plot(at, curve["difference"], "o-", color=colour, label=f"{group}, {mode}")
    means = result.runs.groupby("arm")[measure].mean()
    axes.axhline(means["none"] - means["full"], color=style.INK, linewidth=0.8, linestyle=":")
    axes.axhline(0, color=style.HAIRLINE, linewidth=0.8)
    axes.set_xticks(list(places.values()), [f"{factor:g}" for factor in places])
    axes.set(xlabel="Factor", ylabel=f"{measure.replace('_', ' ').capitalize()}, difference")
