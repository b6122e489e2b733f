"""The look of every figure: fonts, colours, and the frame with a title and a printed selection."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import FontEntry, findfont, fontManager, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine

from recast_probe._utils.text_format import plural
from recast_probe.errors import InputError

PanelAxes = Axes | Sequence[Axes] | np.ndarray | None
"""Where a figure is drawn: None for a new one, or one Axes for each panel in reading order."""

INK = "#1f2430"
SECONDARY = "#5b6370"
HAIRLINE = "#c9ced6"
GRID = "#eceef1"
# marks on maps and pictures; a page that turns dark changes pure white and INK, not these
MARK, MARK_EDGE = "#fffffe", "#1f2431"

# Okabe and Ito's palette, which stays apart under the common colour-vision deficiencies.
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#e69f00", "#009e73", "#cc79a7"
VERMILLION, SKY, GREY = "#d55e00", "#56b4e9", "#8c929c"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, VERMILLION, SKY)
# where a figure has more arms than that; of Tol's muted scheme
MORE = ("#882255", "#44aa99", "#999933", "#6f4fb0", "#a0522d", "#5f7f95")

ARM_COLOURS = {
    "full": INK,
    "recast": BLUE,
    "random": ORANGE,
    "none": GREY,
    "without reference": GREY,
    "oracle": GREEN,
    "self-attention": PURPLE,
    "reversed": VERMILLION,
    "cosine": SKY,
}

SETTINGS: dict[Any, Any] = {
    "font.family": ["Inter", "DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    # prompts and file names may hold dollar signs
    "text.parse_math": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.labelsize": 9.5,
    "axes.labelcolor": SECONDARY,
    "axes.labelpad": 6,
    "axes.edgecolor": HAIRLINE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.unicode_minus": True,
    "axes.prop_cycle": cycler(color=PALETTE),
    "grid.color": GRID,
    "grid.linewidth": 0.9,
    "xtick.color": HAIRLINE,
    "ytick.color": HAIRLINE,
    "xtick.labelcolor": SECONDARY,
    "ytick.labelcolor": SECONDARY,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.2,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
    "pdf.fonttype": 42,
    "svg.hashsalt": "recast_probe",
}

_FONTS = Path(__file__).parent / "fonts"
for _file, _weight in (("Inter-Regular.ttf", 400), ("Inter-SemiBold.ttf", 700)):
    fontManager.ttflist.append(
        FontEntry(fname=str(_FONTS / _file), name="Inter", weight=_weight, size="scalable")
    )


@contextmanager
def house_style() -> Iterator[None]:
    """Inside, new figures and saved files have the house style; the user's settings come back.

    Examples:
        >>> with house_style():
        ...     mpl.rcParams["font.size"]
        9.5
    """
    with mpl.rc_context(SETTINGS):
        yield


class Chart(Figure):
    """A matplotlib Figure outside pyplot's state that a notebook shows by itself.

    Attributes:
        inside: the room left for the plot: (left, top, width, height) in inches.
        words: title, note and selection, which stand around it.
    """

    inside: tuple[float, float, float, float]
    words: dict[str, str]

    def place(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes at exact inches, counted from the upper left corner of the inside."""
        total_width, total_height = self.get_size_inches()
        bottom = total_height - self.inside[1] - top - height
        return self.add_axes(
            (
                (self.inside[0] + left) / total_width,
                bottom / total_height,
                width / total_width,
                height / total_height,
            )
        )

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        buffer = io.BytesIO()
        with house_style():
            self.savefig(buffer, format="png", dpi=200)
        width, height = self.get_size_inches()
        return buffer.getvalue(), {"width": round(100 * width), "height": round(100 * height)}


def chart(
    width: float,
    height: float,
    *,
    title: str,
    selection: str,
    note: str = "",
    exact: bool = False,
) -> Chart:
    """An empty figure with room for a plot of `width` by `height` inches, framed by its texts.

    Above the plot stand the title and, smaller, the note (how to read it); below stands the
    selection, so that a figure always says which blocks, steps and heads it shows. The figure
    grows with its texts. Axes are laid out by matplotlib, or placed by `Chart.place` if `exact`.
    Call inside `house_style`.
    """
    margin, gap = 0.18, 0.14
    lines = {
        "title": _wrapped(title, width * 9.5),
        "note": _wrapped(note, width * 15.2),
        "selection": _wrapped(selection[:1].upper() + selection[1:], width * 17),
    }
    # inches of the first line, and of each further one at a line spacing of 1.25
    pitch = {"title": (0.235, 0.275), "note": (0.185, 0.2), "selection": (0.155, 0.167)}
    tall = {
        name: first + further * (len(lines[name]) - 1) if lines[name] else 0
        for name, (first, further) in pitch.items()
    }
    note_top = margin + tall["title"] + (0.03 if note else 0)
    top = note_top + tall["note"] + (gap if title or note else 0)
    bottom = margin + tall["selection"] + (gap if selection else 0)
    total_width, total_height = width + 2 * margin, top + height + bottom

    left, room = margin / total_width, (width / total_width, height / total_height)
    layout = ConstrainedLayoutEngine(
        rect=(left, bottom / total_height, *room), w_pad=0.03, h_pad=0.03, wspace=0.04
    )
    figure = Chart(figsize=(total_width, total_height), layout=None if exact else layout)
    figure.inside = (margin, top, width, height)
    figure.words = {"title": title, "note": note, "selection": selection}
    texts: tuple[tuple[str, float, str, dict[str, Any]], ...] = (
        ("title", 1 - margin / total_height, "top", {"size": 13, "weight": "bold"}),
        ("note", 1 - note_top / total_height, "top", {"size": 9.5, "color": SECONDARY}),
        ("selection", margin / total_height, "bottom", {"size": 8, "color": SECONDARY}),
    )
    for name, place, above, style in texts:
        if lines[name]:
            text = "\n".join(lines[name])
            figure.text(left, place, text, va=above, linespacing=1.25, **style)
    return figure


def panels(
    axes: PanelAxes,
    count: int,
    width: float,
    height: float,
    *,
    title: str,
    selection: str,
    note: str = "",
    **grid: Any,
) -> list[Axes]:
    """The given axes, or so many beside each other in a new `chart`.

    Args:
        axes: see `given_axes`; None makes a chart of `width` by `height` inches.
        grid: of ``Figure.subplots``, such as width_ratios.
    """
    if axes is not None:
        return given_axes(axes, count)
    figure = chart(width, height, title=title, selection=selection, note=note)
    return list(figure.subplots(1, count, squeeze=False, **grid)[0])


def given_axes(axes: PanelAxes, count: int) -> list[Axes]:
    """Check the axes that somebody gives a figure of so many panels.

    Args:
        axes: one for each panel, in reading order; that of a single panel may stand alone.

    Raises:
        InputError: another number of axes, something else, or axes of two figures.
    """
    found = np.asarray(axes, dtype=object).ravel().tolist()
    if len(found) != count or not all(isinstance(each, Axes) for each in found):
        kinds = ", ".join(dict.fromkeys(type(each).__name__ for each in found)) or "nothing"
        raise InputError(
            f"This figure has {count} {plural('panel', range(count))}: give axes= one matplotlib "
            f"Axes for each, in reading order, not {len(found)} of {kinds}."
        )
    if len({figure_of(each) for each in found}) > 1:
        raise InputError("All axes of a figure must be in one matplotlib Figure.")
    return found


def figure_of(axes: Axes) -> Figure:
    """The whole figure that axes are in."""
    found = axes.get_figure(root=True)
    assert found is not None
    return found


def _wrapped(text: str, characters: float) -> list[str]:
    return textwrap.wrap(text, max(int(characters), 16))


def text_width(text: str, size: float) -> float:
    """Width in inches of one line in the regular font at `size` points."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # drawing warns of missing glyphs again
        font = get_font([_FONTS / "Inter-Regular.ttf", findfont("DejaVu Sans")])
        font.set_size(size, 72)
        font.set_text(text)
    return font.get_width_height()[0] / 64 / 72


def arm_colours(arms: Iterable[str]) -> dict[str, str]:
    """The same colour for the same arm in every figure; unknown arms take what is left, in order.

    "ReCAST, 64 tokens" has the colour of "recast": a name counts up to its first comma.
    """
    arms = list(arms)
    known = {arm: ARM_COLOURS.get(arm.split(",")[0].strip().lower()) for arm in arms}
    left = [colour for colour in (*PALETTE, *MORE) if colour not in known.values()]
    chosen: dict[str, str] = {}
    taken = 0
    for arm in arms:
        colour = known[arm]
        if colour is None or colour in chosen.values():
            colour = left[taken % len(left)]
            taken += 1
        chosen[arm] = colour
    return chosen


def heat_colours() -> Colormap:
    """Light to dark, evenly perceived, for quantities from low to high."""
    mako = sns.color_palette("mako_r", as_cmap=True)
    return ListedColormap(mako(np.linspace(0, 0.86, 256)), "recast_heat")


def glow_colours() -> Colormap:
    """Dark to bright, evenly perceived, for maps that lie over an image."""
    rocket = sns.color_palette("rocket", as_cmap=True)
    return ListedColormap(rocket(np.linspace(0.08, 1, 256)), "recast_glow")


def agreement_colours() -> Colormap:
    """Red over white to blue, for correlations from -1 to 1."""
    return sns.color_palette("vlag_r", as_cmap=True)


def bare(axes: Axes) -> None:
    """An axes for an image: no ticks, no grid, no frame."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def bare_bar(bar: Colorbar | None) -> None:
    """A colour bar without frame and ticks."""
    if bar is None:
        return
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
