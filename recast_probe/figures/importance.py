"""Where the generation looks: score maps over the reference image, block by block."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.arguments import figure_function
from recast_probe.figures.overlay import draw_image, draw_map

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile


@figure_function
def plot_importance(
    profile: AttentionProfile,
    image: Image.Image | None = None,
    *,
    reference: int = 0,
    axes: style.PanelAxes = None,
) -> Figure:
    """Score maps (Eq. 2 and 3) over the reference: the mean of the blocks, and every block.

    Colours say how many times an equal share of the attention a token receives, on one scale for
    all panels, so a block without preference looks flat. A token that was removed in a selected
    step is grey. The panels are the image where it is given, the mean, and the blocks.

    Args:
        image: the reference as the model saw it; without it the maps stand alone.
        reference: which of several reference images.

    Raises:
        InputError: tokens without places in the image, an unknown reference, or no token that was
            present in all of the selected steps.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> figure = plot_importance(planted(np.arange(16.0)))
        >>> [panel.get_title(loc="left") for panel in figure.axes[:2]]
        ['Mean of the blocks', 'Block 0, double']
    """
    if not profile.layout.placed:
        raise InputError(
            "These reference tokens have no places in the image, so there is no map of them; use "
            "figures.plot_importance_by_token."
        )

    def share(part: AttentionProfile) -> np.ndarray:
        score = part.mean_score()
        maps = profile.reference_map(score / score.mean())
        if not 0 <= reference < len(maps):
            raise InputError(f"reference is {reference}; the profile has {len(maps)} references.")
        return np.asarray(maps[reference])

    indices = [int(block) for block in profile.dataset["block"]]
    mean, blocks = share(profile), [share(profile.sel(block)) for block in indices]
    if np.isnan(mean).all():
        raise InputError(
            "No reference token was present in all of the selected steps; select steps before "
            "tokens were removed."
        )
    highest = float(np.nanquantile(np.stack([mean, *blocks]), 0.995))
    scale = Normalize(0, max(highest, 1.5))

    columns = min(len(blocks), 10 if len(blocks) > 16 else 4 if len(blocks) > 6 else 3)
    bar_axes = None
    if axes is None:
        leads = 1 if image is None else 2
        aspect = mean.shape[0] / mean.shape[1]
        panels, bar_axes = _placed(leads, len(blocks), columns, aspect, profile.selection_text())
    else:
        panels = style.given_axes(axes, len(blocks) + (1 if image is None else 2))
    *lead, mean_axes = panels[: -len(blocks)]
    for panel in lead:
        assert image is not None
        draw_image(panel, image)
        panel.set_aspect("auto")
        panel.set_title("Reference", pad=5)
    draw_map(mean_axes, mean, image, scale)
    mean_axes.set_title("Mean of the blocks", pad=5)
    for panel, values, index in zip(panels[-len(blocks) :], blocks, indices, strict=True):
        draw_map(panel, values, image, scale, pixels=200)
        name = f"Block {index}, {profile.block_kinds[index]}" if columns <= 4 else str(index)
        panel.set_title(name, size=8.5, weight="normal", color=style.SECONDARY, pad=4)
    figure = style.figure_of(mean_axes)
    bar = figure.colorbar(
        ScalarMappable(scale, style.glow_colours()),
        cax=bar_axes,
        ax=panels if bar_axes is None else None,
        extend="max",
        extendfrac=0.04,
    )
    style.bare_bar(bar)
    bar.set_label("Times an equal share")
    return figure


def _placed(
    leads: int, blocks: int, columns: int, aspect: float, selection: str
) -> tuple[list[Axes], Axes]:
    """A chart's panels, leads on the left and blocks on the right, and the axes of its bar."""
    rows = math.ceil(blocks / columns)
    side = 1.5 if columns <= 4 else 0.84
    gap, label, lead_label = 0.1, 0.24, 0.28
    step = side * aspect + gap + label
    # The pictures on the left are as tall together as the blocks on the right.
    tall = max(rows * step - gap, leads * (1.3 * aspect + lead_label + gap))
    lead = min((tall - (leads - 1) * gap) / leads - lead_label, 2.9) / aspect
    start = lead + 0.32
    bar_left = start + columns * (side + gap) + 0.12
    figure = style.chart(
        max(bar_left + 0.75, 5.2),
        tall,
        title="Where the generation looks in the reference",
        note="Attention that each reference token receives, as multiples of an equal share.",
        selection=selection,
        exact=True,
    )
    tops = [lead_label + place * (lead * aspect + gap + lead_label) for place in range(leads)]
    panels = [figure.place(0, top, lead, lead * aspect) for top in tops]
    for place in range(blocks):
        row, column = divmod(place, columns)
        left = start + column * (side + gap)
        panels.append(figure.place(left, row * step + label, side, side * aspect))
    return panels, figure.place(bar_left, label, 0.13, min(tall - label, 2.6))
