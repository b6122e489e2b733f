"""How far reused keys and values are from recomputed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function

if TYPE_CHECKING:
    from recast_probe.diagnostics.drift import Drift

TITLES = {"key": "Keys", "value": "Values", "output": "Attention output"}


@figure_function
def plot_drift(
    result: Drift,
    source: int | None = None,
    branch: str = "conditional",
    *,
    axes: style.PanelAxes = None,
) -> Figure:
    """Relative error by step and block of keys, values and attention output, from one source step.

    Three panels.

    Raises:
        InputError: a source or branch that was not recorded.

    Examples:
        >>> from recast_probe.diagnostics.drift import Drift
        >>> errors = {name: np.eye(2) for name in ("key", "value", "output")}
        >>> rows = {(0, "conditional"): errors}
        >>> found = Drift.build(rows, [1000, 500], ["single"] * 2, "tiny model")
        >>> [panel.get_title(loc="left") for panel in plot_drift(found).axes[:3]]
        ['Keys', 'Values', 'Attention output']
    """
    sources = [int(each) for each in result.errors["source"]]
    source = sources[0] if source is None else source
    if source not in sources or branch not in result.errors["branch"]:
        raise InputError(f"Drift was recorded from {sources}, not from {source} of {branch!r}.")
    errors = result.errors.sel(source=source, branch=branch)
    top = max(float(errors[name].max()) for name in TITLES)
    drawn = style.panels(
        axes,
        3,
        9.0,
        3.0,
        title=f"Drift of the reference since step {source}",
        note="Relative error of what was kept against what the step computes. Output: of the "
        "generation tokens, with what was kept in place in that block alone.",
        selection=f"{result.selection}, {branch} branch",
        sharey=True,
    )
    image = None
    for panel, (name, title) in zip(drawn, TITLES.items(), strict=True):
        values = np.asarray(errors[name], np.float64).T
        image = panel.imshow(values, aspect="auto", vmin=0, vmax=top, cmap=style.heat_colours())
        panel.set(title=title, xlabel="Step (noise to image)")
        panel.grid(False)
    drawn[0].set_ylabel("Block")
    assert image is not None
    figure = style.figure_of(drawn[0])
    style.bare_bar(figure.colorbar(image, ax=drawn, label="Relative error", pad=0.01))
    return figure
