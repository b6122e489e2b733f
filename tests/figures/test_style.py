from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from PIL import Image

from recast_probe import diagnostics, figures
from recast_probe.figures.style import ARM_COLOURS, SETTINGS, arm_colours, house_style, text_width


def test_figures_leave_no_global_state(profile):
    before = dict(mpl.rcParams)
    figures.plot_skew(diagnostics.skew(profile))
    assert plt.get_fignums() == []
    assert {key for key in SETTINGS if before[key] != mpl.rcParams[key]} == set()


def test_the_shipped_font_is_used():
    with house_style():
        assert findfont("Inter").endswith("Inter-Regular.ttf")
        assert findfont("Inter:bold").endswith("Inter-SemiBold.ttf")


def test_figures_show_themselves_in_notebooks():
    figure = figures.plot_budgets({"ReCAST": [4, 2]}, 4, selection="2 steps")
    content, size = figure._repr_png_()
    assert content.startswith(b"\x89PNG")
    assert size["width"] == round(100 * figure.get_figwidth())


def test_arms_keep_their_colours():
    assert arm_colours(["ReCAST", "full"])["ReCAST"] == ARM_COLOURS["recast"]
    assert arm_colours(["x", "ReCAST"])["ReCAST"] == ARM_COLOURS["recast"]
    many = arm_colours(["full", "ReCAST, 64", "ReCAST, 32", "merging", "random"])
    assert many["ReCAST, 64"] == ARM_COLOURS["recast"]
    assert len(set(many.values())) == 5
    assert all(to_hex(colour) == colour for colour in many.values())


def test_saved_figures_are_whole_and_the_same_every_time(profile, tmp_path):
    def draw() -> Figure:
        return figures.plot_skew(diagnostics.skew(profile))

    first = figures.save_figure(draw(), tmp_path / "new" / "lorenz.v1")
    second = figures.save_figure(draw(), tmp_path / "again")
    assert [path.name for path in first] == ["lorenz.v1.png", "lorenz.v1.pdf"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "lorenz.v1.pdf",
        "lorenz.v1.png",
    ]
    with Image.open(first[0]) as image:
        assert image.info["dpi"] == pytest.approx((200, 200), abs=0.1)
        assert image.info["Software"] == "recast_probe"
    assert first[1].read_bytes().startswith(b"%PDF")
    assert b"CreationDate" not in first[1].read_bytes()


def test_a_failed_save_leaves_nothing_behind(profile, tmp_path, monkeypatch):
    figure = figures.plot_skew(diagnostics.skew(profile))
    monkeypatch.setattr(
        Figure, "savefig", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        figures.save_figure(figure, tmp_path / "lorenz")
    assert list(tmp_path.iterdir()) == []


def test_text_width_knows_dollars_and_empty_lines():
    assert text_width("", 9) == 0
    assert text_width("costs $5 and $6", 9) > text_width("costs $5 and", 9) > 0.5
