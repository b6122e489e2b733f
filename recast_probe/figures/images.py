"""Generated images side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures.overlay import draw_image
from recast_probe.figures.style import GRID, SECONDARY, Chart, bare, chart, house_style


def image_grid(
    rows: Sequence[Mapping[str, Image.Image | None]],
    prompts: Sequence[str],
    *,
    selection: str,
    captions: Sequence[Mapping[str, str]] | None = None,
    title: str = "What each arm generates",
    side: float = 1.45,
) -> Chart:
    """One row a prompt and one column an arm, in the order of the first row's names.

    `captions` may give a short text under single images, by arm; None leaves a cell empty;
    `side` is an image's width in inches. Raises InputError when rows and prompts differ in number
    or a row lacks a column.
    """
    if not any(image is not None for row in rows for image in row.values()):
        raise InputError("image_grid needs at least one image.")
    if len(rows) != len(prompts):
        raise InputError(f"Got {len(rows)} rows of images and {len(prompts)} prompts.")
    columns = list(rows[0])
    for place, row in enumerate(rows):
        if missing := [column for column in columns if column not in row]:
            raise InputError(f"Row {place} has no image for {', '.join(missing)}.")
    first = next(image for row in rows for image in row.values() if image is not None)
    tall = side * first.height / first.width
    label, gap, head = 1.5, 0.08, 0.26
    step = tall + gap + (0.2 if captions else 0.0)
    with house_style():
        figure = chart(
            label + len(columns) * (side + gap) - gap,
            head + len(rows) * step - gap,
            title=title,
            selection=selection,
            exact=True,
        )
        for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            top = head + place * step
            text = figure.place(0, top, label, tall)
            bare(text)
            text.patch.set_visible(False)
            text.text(0, 0.5, "\n".join(_lines(prompt)), va="center", size=8.5, linespacing=1.3)
            for position, column in enumerate(columns):
                axes = figure.place(label + position * (side + gap), top, side, tall)
                bare(axes)
                image = row[column]
                if image is None:
                    axes.set_facecolor(GRID)
                else:
                    draw_image(axes, image)
                if place == 0:
                    axes.set_title(column, loc="center", size=9.5, pad=6)
                if captions and column in captions[place]:
                    axes.set_xlabel(captions[place][column], size=8, color=SECONDARY, labelpad=3)
    return figure


def _lines(prompt: str, width: int = 22, most: int = 7) -> list[str]:
    lines = textwrap.wrap(prompt, width)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][: width - 3] + "..."]
    return lines
