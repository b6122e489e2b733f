"""How far reused keys and values are from recomputed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from recast_probe.errors import InputError
from recast_probe.figures.style import Chart, bare_bar, chart, heat_colours, house_style

if TYPE_CHECKING:
    from recast_probe.diagnostics.drift import Drift

TITLES = {"key": "Keys", "value": "Values", "output": "Attention output"}


def drift_by_block(result: Drift, source: int | None = None, branch: str = "conditional") -> Chart:
    """Relative error by step and block of keys, values and attention output, from one source step.

    Raises InputError for a source or branch that was not recorded.
    """
    sources = [int(each) for each in result.errors["source"]]
    source = sources[0] if source is None else source
    if source not in sources or branch not in result.errors["branch"]:
        raise InputError(f"Drift was recorded from {sources}, not from {source} of {branch!r}.")
    errors = result.errors.sel(source=source, branch=branch)
    top = max(float(errors[name].max()) for name in TITLES)
    with house_style():
        figure = chart(
            9.0,
            3.0,
            title=f"Drift of the reference since step {source}",
            note="Relative error of what was kept against what the step computes. Output: of the "
            "generation tokens, with what was kept in place in that block alone.",
            selection=f"{result.selection}, {branch} branch",
        )
        panels = figure.subplots(1, 3, sharey=True)
        image = None
        for axes, (name, title) in zip(panels, TITLES.items(), strict=True):
            values = np.asarray(errors[name], np.float64).T
            image = axes.imshow(
                values, aspect="auto", origin="lower", vmin=0, vmax=top, cmap=heat_colours()
            )
            axes.set(title=title, xlabel="Step (noise to image)")
            axes.grid(False)
        panels[0].set_ylabel("Block")
        assert image is not None
        bare_bar(figure.colorbar(image, ax=panels, label="Relative error", pad=0.01))
    return figure
