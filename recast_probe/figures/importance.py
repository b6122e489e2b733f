"""Where the generation looks: score maps over the reference image, block by block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures.overlay import draw_image, draw_map
from recast_probe.figures.style import SECONDARY, Chart, bare_bar, chart, glow_colours, house_style

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile


def importance_over_reference(
    profile: AttentionProfile,
    image: Image.Image | None = None,
    *,
    blocks: Any = "all",
    steps: int | Sequence[int] | None = None,
    heads: int | Sequence[int] | None = None,
    branch: str = "conditional",
    reference: int = 0,
) -> Chart:
    """Score maps (Eq. 2 and 3) over the reference: the mean of the blocks, and every block.

    Colours say how many times an equal share of the attention a token receives, on one scale for
    all panels, so a block without preference looks flat. `image` is the reference as the model
    saw it; without it the maps stand alone. A token that was removed in a selected step is grey.
    `reference` chooses among several reference images. Raises InputError for a selection that
    the profile does not hold, and for tokens without places in the image.
    """
    if not profile.layout.placed:
        raise InputError(
            "These reference tokens have no places in the image, so there is no map of them; use "
            "figures.importance_by_token."
        )
    choice: dict[str, Any] = {"steps": steps, "heads": heads, "branch": branch}

    def share(selected: Any) -> np.ndarray:
        score = profile.mean_score(blocks=selected, **choice)
        maps = profile.reference_map(score / score.mean())
        if not 0 <= reference < len(maps):
            raise InputError(f"reference is {reference}; the profile has {len(maps)} references.")
        return np.asarray(maps[reference])

    indices = [int(block) for block in profile.select(blocks=blocks, **choice)["block"]]
    mean, panels = share(blocks), [share([index]) for index in indices]
    if np.isnan(mean).all():
        raise InputError(
            "No reference token was present in all of the selected steps; select steps before "
            "tokens were removed."
        )
    highest = float(np.nanquantile(np.stack([mean, *panels]), 0.995))
    scale = Normalize(0, max(highest, 1.5))

    columns = min(len(panels), 10 if len(panels) > 16 else 4 if len(panels) > 6 else 3)
    rows = math.ceil(len(panels) / columns)
    aspect = mean.shape[0] / mean.shape[1]
    side = 1.5 if columns <= 4 else 0.84
    gap, label, lead_label = 0.1, 0.24, 0.28
    leads = 1 if image is None else 2
    step = side * aspect + gap + label
    # The pictures on the left are as tall together as the blocks on the right.
    tall = max(rows * step - gap, leads * (1.3 * aspect + lead_label + gap))
    lead = min((tall - (leads - 1) * gap) / leads - lead_label, 2.9) / aspect
    start = lead + 0.32
    bar_left = start + columns * (side + gap) + 0.12
    with house_style():
        figure = chart(
            max(bar_left + 0.75, 5.2),
            tall,
            title="Where the generation looks in the reference",
            note="Attention that each reference token receives, as multiples of an equal share.",
            selection=profile.selection_text(blocks=blocks, **choice),
            exact=True,
        )
        top = lead_label
        if image is not None:
            axes = figure.place(0, top, lead, lead * aspect)
            draw_image(axes, image)
            axes.set_aspect("auto")
            axes.set_title("Reference", pad=5)
            top += lead * aspect + gap + lead_label
        axes = figure.place(0, top, lead, lead * aspect)
        draw_map(axes, mean, image, scale)
        axes.set_title("Mean of the blocks", pad=5)
        for place, (panel, index) in enumerate(zip(panels, indices, strict=True)):
            row, column = divmod(place, columns)
            left = start + column * (side + gap)
            axes = figure.place(left, row * step + label, side, side * aspect)
            draw_map(axes, panel, image, scale, pixels=200)
            name = f"Block {index}, {profile.block_kinds[index]}" if columns <= 4 else str(index)
            axes.set_title(name, size=8.5, weight="normal", color=SECONDARY, pad=4)
        height = min(tall - label, 2.6)
        bar = figure.colorbar(
            ScalarMappable(scale, glow_colours()),
            cax=figure.place(bar_left, label, 0.13, height),
            extend="max",
            extendfrac=0.04,
        )
        bare_bar(bar)
        bar.set_label("Times an equal share")
    return figure
