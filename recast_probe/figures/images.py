"""Generated images side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.figures.overlay import draw_image


@style.house_style()
def plot_images(
    rows: Sequence[Mapping[str, Image.Image | None]],
    prompts: Sequence[str],
    *,
    selection: str,
    captions: Sequence[Mapping[str, str]] | None = None,
    title: str = "What each arm generates",
    side: float = 1.45,
    axes: style.PanelAxes = None,
) -> Figure:
    """One row a prompt and one column an arm, in the order of the first row's names.

    A row's panels are its prompt and its images.

    Args:
        rows: images by arm; None leaves a cell empty.
        captions: short texts under single images, by arm.
        side: width of an image in inches.

    Raises:
        InputError: no image, rows and prompts that differ in number, or a row without a column.

    Examples:
        >>> rows = [{"Full": Image.new("RGB", (8, 8)), "None": None}]
        >>> len(plot_images(rows, ["a fox"], selection="seed 0").axes)
        3
    """
    if not any(image is not None for row in rows for image in row.values()):
        raise InputError("plot_images needs at least one image.")
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
    if axes is None:
        figure = style.chart(
            label + len(columns) * (side + gap) - gap,
            head + len(rows) * step - gap,
            title=title,
            selection=selection,
            exact=True,
        )
        cells = [
            figure.place(left, head + place * step, width, tall)
            for place in range(len(rows))
            for left, width in (
                (0.0, label),
                *((label + position * (side + gap), side) for position in range(len(columns))),
            )
        ]
    else:
        cells = style.given_axes(axes, len(rows) * (1 + len(columns)))
    left_to_draw = iter(cells)
    for place, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        text = next(left_to_draw)
        style.bare(text)
        text.patch.set_visible(False)
        text.text(0, 0.5, "\n".join(_lines(prompt)), va="center", size=8.5, linespacing=1.3)
        for column in columns:
            cell = next(left_to_draw)
            style.bare(cell)
            image = row[column]
            if image is None:
                cell.set_facecolor(style.GRID)
            else:
                draw_image(cell, image)
            if place == 0:
                cell.set_title(column, loc="center", size=9.5, pad=6)
            if captions and column in captions[place]:
                cell.set_xlabel(captions[place][column], size=8, color=style.SECONDARY, labelpad=3)
    return style.figure_of(cells[0])


def _lines(prompt: str, width: int = 22, most: int = 7) -> list[str]:
    lines = textwrap.wrap(prompt, width)
    if len(lines) > most:
        lines = [*lines[: most - 1], lines[most - 1][: width - 3] + "..."]
    return lines
