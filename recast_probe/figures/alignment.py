"""How the output lies over the reference: its frame, shifted and zoomed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from recast_probe.figures import style

if TYPE_CHECKING:
    from recast_probe.diagnostics import Alignment, Interval


@style.house_style()
def plot_alignment(result: Alignment, *, axes: style.PanelAxes = None) -> Figure:
    """The reference's frame as the output shows it, and zoom and shifts with their intervals.

    Examples:
        >>> from PIL import Image
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> probe = rp.Probe(build_tiny_pipeline())
        >>> image = Image.new("RGB", (64, 64))
        >>> maps = probe.attention_maps(image, "a fox", steps=2, progress=False)
        >>> figure = plot_alignment(rp.alignment(rp.correspondence(maps)))
        >>> [panel.get_xlabel() for panel in figure.axes]
        ['Image width', 'Per cent']
    """
    frame, numbers = style.panels(
        axes,
        2,
        8.2,
        3.6,
        title="Does the output shift or zoom against the reference?",
        note=(
            "Dotted: the image. Solid: where the reference's frame lies in it. "
            f"{result.following:.0%} of the tokens look where the fit says."
        ),
        selection=result.selection,
        width_ratios=[1, 1.4],
    )
    _draw_frame(frame, result)
    rows = {
        "zoom": (result.zoom, 1.0),
        "shift down": (result.shift_y, 0.0),
        "shift right": (result.shift_x, 0.0),
    }
    for place, (found, none) in enumerate(rows.values()):
        _draw_interval(numbers, place, found, none)
    numbers.axvline(0, color=style.INK, linewidth=0.8, linestyle=":")
    numbers.set_yticks(range(len(rows)), list(rows))
    numbers.invert_yaxis()
    numbers.set(xlabel="Per cent", ylim=(len(rows) - 0.5, -0.5))
    return style.figure_of(frame)


def _draw_frame(axes: Axes, result: Alignment) -> None:
    zoom = result.zoom.mean
    corner = (0.5 + result.shift_x.mean - zoom / 2, 0.5 + result.shift_y.mean - zoom / 2)
    axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=style.INK, linestyle=":"))
    axes.add_patch(Rectangle(corner, zoom, zoom, fill=False, edgecolor=style.BLUE, linewidth=1.8))
    ends = [-0.15, 1.15, *corner, *(each + zoom for each in corner)]
    axes.set(xlim=(min(ends), max(ends)), ylim=(max(ends), min(ends)))
    axes.set(xlabel="Image width", ylabel="Image height", aspect="equal")
    axes.grid(False)


def _draw_interval(axes: Axes, place: int, found: Interval, none: float) -> None:
    """In per cent away from none."""
    mean, low, high = (100 * (end - none) for end in (found.mean, found.low, found.high))
    axes.hlines(place, low, high, color=style.BLUE, linewidth=2.4)
    axes.plot(mean, place, "o", color=style.BLUE)
