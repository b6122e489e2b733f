"""Where each place of the image looks in the reference, as arrows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function

if TYPE_CHECKING:
    from recast_probe.diagnostics import Correspondence

MOST_ARROWS = 400


@figure_function
def plot_correspondence(
    result: Correspondence,
    generated: Image.Image | None = None,
    reference: Image.Image | None = None,
    expected: bool = False,
    *,
    axes: style.PanelAxes = None,
) -> Figure:
    """Arrows from each generation token to the reference place that it looks at.

    On the left, in the generated image: an arrow leads to where the place lies, as if the reference
    were laid over it. On the right, the places in the reference; the larger a dot, the more tokens
    look there. Faint arrows belong to tokens whose attention is spread out.

    Args:
        expected: the mean place in place of the best one.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> probe = rp.Probe(build_tiny_pipeline())
        >>> image = Image.new("RGB", (64, 64))
        >>> maps = probe.attention_maps(image, "a fox", steps=2, progress=False)
        >>> figure = plot_correspondence(rp.correspondence(maps))
        >>> [panel.get_title(loc="left") for panel in figure.axes]
        ['In the generated image', 'In the reference']
    """
    ends = (result.expected_place if expected else result.best_place).values
    starts = result.place.values
    every = max(1, math.ceil(len(starts) / MOST_ARROWS))
    strength = np.clip(result.peak.values / max(float(result.peak.max()), 1e-9), 0.15, 1)
    what = "mean" if expected else "most attended"
    layers = result.generation.layers
    over = "" if layers == 1 else f" The tokens of {layers} layers lie over one another."
    left, right = style.panels(
        axes,
        2,
        8.2,
        4.0,
        title="Where each place looks in the reference",
        note=(
            f"Arrows lead to the {what} place of each token; strong ones have their attention "
            f"on few tokens. Dots: how many tokens look there.{over}"
        ),
        selection=result.selection,
    )
    _prepare(left, generated, result.generation.rows / result.generation.columns)
    _prepare(right, reference, result.reference.rows / result.reference.columns)
    left.set_title("In the generated image")
    right.set_title("In the reference")
    chosen = slice(None, None, every)
    step = ends[chosen] - starts[chosen]
    left.quiver(
        starts[chosen, 1],
        starts[chosen, 0],
        step[:, 1],
        step[:, 0],
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.004,
        color=style.VERMILLION,
        alpha=strength[chosen],
    )
    places, counts = np.unique(ends.round(6), axis=0, return_counts=True)
    right.scatter(
        places[:, 1], places[:, 0], s=14 * counts, color=style.BLUE, alpha=0.7, edgecolor=style.MARK
    )
    return style.figure_of(left)


def _prepare(axes: Axes, image: Image.Image | None, aspect: float) -> None:
    if image is not None:
        axes.imshow(image.convert("L"), cmap="gray", extent=(0, 1, 1, 0), alpha=0.55)
    axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
    axes.set_aspect(aspect)
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(style.HAIRLINE)
