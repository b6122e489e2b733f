"""How much place decides where each head looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from recast_probe.figures.heads import plot_heads
from recast_probe.figures.style import PanelAxes

if TYPE_CHECKING:
    from recast_probe.diagnostics import CopyHeads


def plot_copy_heads(result: CopyHeads, *, axes: PanelAxes = None) -> Figure:
    """Mutual information of every head, with the copy heads marked.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> import numpy as np
        >>> found = rp.copy_heads(planted(np.full((1, 2, 2, 16), 1 / 32)))
        >>> plot_copy_heads(found).axes[0].get_ylabel()
        'Head'
    """
    return plot_heads(
        result.information,
        label="Bits",
        title="How much place decides where a head looks",
        note=(
            f"Mutual information of generation place and reference token, at most "
            f"{result.maximum:.1f} bits. Dots: copy heads, with {result.threshold:.0%} of it or "
            f"more and {result.min_mass:.0%} or more of their attention on the reference."
        ),
        selection=result.selection,
        marks=result.heads,
        highest=result.maximum,
        axes=axes,
    )
