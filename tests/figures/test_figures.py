from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import recast_probe.diagnostics as diagnostics
from recast_probe import figures
from recast_probe.diagnostics import Interval
from recast_probe.errors import InputError
from recast_probe.figures.overlap import outline
from recast_probe.figures.style import house_style
from tests.own_warnings import no_warnings

# A warning (a glyph that no font has, a layout that does not fit) is a fault of the figure.
pytestmark = no_warnings

SUBJECTS = 10
ARMS = ("full", "ReCAST", "random", "none")


@pytest.fixture(scope="module")
def arms():
    random = np.random.default_rng(0)
    values = {
        arm: random.normal(mean, 0.05, SUBJECTS)
        for arm, mean in zip(ARMS, (0.8, 0.76, 0.6, 0.3), strict=True)
    }
    intervals = {arm: diagnostics.bootstrap_mean(scores) for arm, scores in values.items()}
    return values, intervals


@pytest.fixture(scope="module")
def every_figure(profile, profiles, mask, picture, arms):
    values, intervals = arms
    labels = ["on a beach", "in snow", "at night", "costs $5 or $6"]
    return {
        "importance": figures.plot_importance(profile, picture),
        "importance alone": figures.plot_importance(profile.sel("single", steps=0)),
        "lorenz": figures.plot_skew(diagnostics.skew(profile)),
        "lorenz of blocks": figures.plot_skew(
            {f"block {b}": diagnostics.skew(profile, blocks=b) for b in (0, 3)}
        ),
        "entropy": figures.plot_entropy(diagnostics.entropy(profile)),
        "overlap": figures.plot_overlap(diagnostics.overlap(profile, mask), picture),
        "stability": figures.plot_stability(diagnostics.stability(profiles, labels=labels)),
        "identity": figures.plot_arms(
            values, intervals, metric="Cosine", selection="10 subjects, seed 0"
        ),
        "budget": figures.plot_budgets(
            {"ReCAST": [48, 6, 8, 12], "none": [0] * 4}, 48, selection="from step 1"
        ),
        "images": figures.plot_images(
            [{"Reference": picture, "ReCAST": picture, "None": None}] * 2,
            ["a fox", "costs $5 and $6 " + "very long " * 40],
            selection="12 steps, seed 0",
            captions=[{"ReCAST": "0.91"}, {}],
        ),
    }


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


NAMES = (
    "importance",
    "importance alone",
    "lorenz",
    "lorenz of blocks",
    "entropy",
    "overlap",
    "stability",
    "identity",
    "budget",
    "images",
)


@pytest.mark.parametrize("name", NAMES)
def test_every_text_lies_inside_the_figure(every_figure, name):
    figure = every_figure[name]
    with house_style():
        figure.draw_without_rendering()
    width, height = figure.bbox.width, figure.bbox.height
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= -1
    for text in figure.texts:
        box = text.get_window_extent()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0, text


@pytest.mark.parametrize("name", NAMES)
def test_title_and_selection_overlap_no_axes(every_figure, name):
    figure = every_figure[name]
    with house_style():
        figure.draw_without_rendering()
    for text in figure.texts:
        frame = text.get_window_extent()
        for axes in figure.axes:
            assert not frame.overlaps(axes.get_tightbbox()), (text.get_text(), axes.get_title())


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_title_and_prints_its_selection(every_figure, profile, name):
    figure = every_figure[name]
    assert isinstance(figure, Figure)
    title, *_, selection = (text.get_text() for text in figure.texts)
    assert len(title) > 10
    expected = {
        "importance": profile.selection_text(),
        "importance alone": profile.sel("single", steps=0).selection_text(),
        "identity": "10 subjects, seed 0",
        "budget": "From step 1",
        "images": "12 steps, seed 0",
    }.get(name, "all heads")
    assert expected.lower() in selection.replace("\n", " ").lower()


def test_importance_has_a_panel_for_the_reference_the_mean_and_every_block(every_figure):
    titles = [axes.get_title(loc="left") for axes in every_figure["importance"].axes]
    assert titles[:2] == ["Reference", "Mean of the blocks"]
    assert titles[2:8] == [
        "Block 0, double",
        *(f"Block {block}, single" for block in range(1, 6)),
    ]
    alone = [axes.get_title(loc="left") for axes in every_figure["importance alone"].axes]
    assert alone[:6] == ["Mean of the blocks", *(f"Block {block}, single" for block in range(1, 6))]


def test_importance_draws_the_mean_score_where_it_is(profile, every_figure):
    axes = every_figure["importance alone"].axes[0]
    drawn = np.asarray(axes.images[0].get_array()).sum(axis=-1)
    score = profile.reference_map(profile.sel("single", steps=0).mean_score())[0]
    assert np.unravel_index(drawn.argmax(), drawn.shape) == np.unravel_index(
        np.asarray(score).argmax(), score.shape
    )


def test_importance_of_an_unknown_reference_is_refused(profile):
    with pytest.raises(InputError, match="reference is 1"):
        figures.plot_importance(profile, reference=1)


def test_lorenz_draws_the_curve_and_marks_the_fraction(profile, every_figure):
    result = diagnostics.skew(profile)
    axes = every_figure["lorenz"].axes[0]
    curve, point = axes.lines[1].get_xydata(), axes.lines[2].get_xydata()
    assert curve[:, 1] == pytest.approx(np.asarray(result.lorenz))
    assert point[0] == pytest.approx([result.fraction, result.top_share_of_mean_score])
    assert f"{result.top_share_of_mean_score:.0%}" in texts(every_figure["lorenz"])
    legend = every_figure["lorenz of blocks"].axes[0].get_legend()
    assert [text.get_text().split(":")[0] for text in legend.get_texts()] == ["block 0", "block 3"]
    with pytest.raises(InputError, match="at least one"):
        figures.plot_skew({})


def test_entropy_draws_both_curves_the_maximum_and_every_block(profile, every_figure):
    result = diagnostics.entropy(profile)
    curves, heat = every_figure["entropy"].axes[:2]
    maximum, marginal, conditional = curves.lines[:3]
    assert set(maximum.get_ydata()) == {result.maximum}
    assert marginal.get_xydata()[:, 0] == pytest.approx([0, 1, 2, 3])
    assert "timestep 1000 to 250" in curves.get_xlabel()
    assert marginal.get_ydata() == pytest.approx(np.asarray(result.marginal))
    assert conditional.get_ydata() == pytest.approx(np.asarray(result.conditional))
    cells = heat.collections[0].get_array()
    expected = np.asarray(result.block_marginal.transpose("block", "step"))
    assert np.asarray(cells).reshape(expected.shape) == pytest.approx(expected)


def test_entropy_of_a_single_step_can_be_drawn(profile):
    figure = figures.plot_entropy(diagnostics.entropy(profile.sel(steps=[2])))
    with house_style():
        figure.draw_without_rendering()
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["2"]


def test_overlap_draws_measures_nulls_and_blocks(profile, mask, every_figure):
    result = diagnostics.overlap(profile, mask)
    _, metrics, by_block = every_figure["overlap"].axes
    drawn = {float(line.get_xdata()[0]) for line in metrics.lines if line.get_marker() == "o"}
    assert result.auroc in drawn
    assert result.precision_at_k in drawn
    bars = [tuple(line.get_xdata()) for line in metrics.lines if len(line.get_xdata()) == 2]
    assert (result.null["auroc"].low, result.null["auroc"].high) in bars
    assert by_block.lines[1].get_ydata() == pytest.approx(np.asarray(result.block_auroc))
    with pytest.raises(InputError, match="reference is 1"):
        figures.plot_overlap(result, reference=1)


def test_an_outline_separates_marked_from_unmarked_cells():
    cell = np.zeros((3, 4), dtype=bool)
    cell[1, 2] = True
    assert {frozenset(edge) for edge in outline(cell)} == {
        frozenset({(2, 1), (2, 2)}),
        frozenset({(3, 1), (3, 2)}),
        frozenset({(2, 1), (3, 1)}),
        frozenset({(2, 2), (3, 2)}),
    }
    ends = Counter(point for edge in outline(np.ones((2, 5))) for point in edge)
    assert len(outline(np.ones((2, 5)))) == 14
    assert set(ends.values()) == {2}
    assert outline(np.zeros((2, 2))) == []


def test_stability_shows_every_pair_but_no_diagonal(profiles, every_figure):
    matrix = np.asarray(diagnostics.stability(profiles).spearman)
    cells = np.ma.asarray(every_figure["stability"].axes[0].collections[0].get_array())
    cells = cells.reshape(matrix.shape)
    assert np.ma.getmaskarray(cells).tolist() == np.eye(4, dtype=bool).tolist()
    off = ~np.eye(4, dtype=bool)
    assert np.asarray(cells)[off] == pytest.approx(matrix[off])
    assert "costs $5 or $6" in texts(every_figure["stability"])
    with pytest.raises(InputError, match="rank_biased_overlap"):
        figures.plot_stability(diagnostics.stability(profiles), "pearson")


@pytest.mark.parametrize("metric", ["spearman", "kendall", "jaccard", "rank_biased_overlap"])
def test_every_stability_measure_can_be_drawn(profiles, metric):
    figure = figures.plot_stability(diagnostics.stability(profiles), metric)
    with house_style():
        figure.draw_without_rendering()


def test_identity_draws_every_subject_and_every_interval(arms, every_figure):
    values, intervals = arms
    axes = every_figure["identity"].axes[0]
    subjects = [line for line in axes.lines if len(line.get_xdata()) == len(ARMS)]
    assert len(subjects) == SUBJECTS
    assert subjects[3].get_ydata() == pytest.approx([values[arm][3] for arm in ARMS])
    bars = [tuple(line.get_ydata()) for line in axes.lines if len(line.get_ydata()) == 2]
    assert (intervals["random"].low, intervals["random"].high) in bars
    assert "95%" in texts(every_figure["identity"])
    assert "10 subjects" in texts(every_figure["identity"])
    with pytest.raises(InputError, match="same number"):
        figures.plot_arms({"a": [1, 2], "b": [1]}, intervals, metric="m", selection="s")


def test_an_arm_without_interval_is_drawn_without_bar():
    unknown = Interval(mean=0.5, low=math.nan, high=math.nan, confidence=0.95, count=1)
    figure = figures.plot_arms(
        {"full": [0.5]}, {"full": unknown}, metric="m", selection="one subject"
    )
    with house_style():
        figure.draw_without_rendering()
    assert "0.50" in texts(figure)


def test_budget_draws_every_step_and_says_the_mean(every_figure):
    figure = every_figure["budget"]
    steps = figure.axes[0].patches[0].get_data()
    assert list(steps.values) == [48, 6, 8, 12]
    assert list(steps.edges) == [-0.5, 0.5, 1.5, 2.5, 3.5]
    assert "mean 18" in texts(figure) or "mean 19" in texts(figure)
    for empty in ({}, {"ReCAST": []}):
        with pytest.raises(InputError, match="at least one"):
            figures.plot_budgets(empty, 48, selection="s")


def test_image_grid_keeps_rows_and_columns_in_order(every_figure, picture):
    axes = every_figure["images"].axes
    assert [one.get_title() for one in axes[:4]] == ["", "Reference", "ReCAST", "None"]
    assert [len(one.images) for one in axes] == [0, 1, 1, 0] * 2
    assert axes[2].get_xlabel() == "0.91"
    assert "..." in axes[4].texts[0].get_text()
    for rows, prompts in (
        ([], []),
        ([{"a": picture}], ["x", "y"]),
        ([{"a": picture}, {"b": picture}], ["x", "y"]),
        ([{"a": None}], ["x"]),
    ):
        with pytest.raises(InputError):
            figures.plot_images(rows, prompts, selection="s")


def test_lines_on_each_other_share_it_in_dashes_and_are_named():
    tokens = {"full": [48] * 3, "ReCAST": [48, 6, 8], "random": [48, 6, 8], "none": [0] * 3}
    figure = figures.plot_budgets(tokens, 48, selection="3 steps")
    styles = [patch.get_linestyle() for patch in figure.axes[0].patches]
    assert styles[0] == styles[3] == "solid"
    (first, drawn), (second, same) = (
        patch._unscaled_dash_pattern for patch in figure.axes[0].patches[1:3]
    )
    assert drawn == same == (3, 3)
    assert second - first == 3, "one's dashes fill the other's gaps"
    assert "ReCAST, random" in figure.words["note"]
    assert "dashes" not in figures.plot_budgets({"full": [4]}, 4, selection="s").words["note"]


def test_many_arms_stand_in_rows_each_in_its_own_colour(arms):
    values, intervals = arms
    names = [f"arm number {place}, of a longer name" for place in range(11)]
    figure = figures.plot_arms(
        dict.fromkeys(names, values["full"]),
        dict.fromkeys(names, intervals["full"]),
        metric="m",
        selection="s",
    )
    with house_style():
        figure.draw_without_rendering()
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert axes.yaxis_inverted()
    means = [line for line in axes.lines if line.get_markersize() == 8.5]
    assert [line.get_xdata()[0] for line in means] == pytest.approx([intervals["full"].mean] * 11)
    assert len({line.get_color() for line in means}) == 11


def test_block_0_is_on_top_of_every_map():
    from recast_probe.diagnostics.drift import Drift

    errors = {name: np.eye(2) for name in ("key", "value", "output")}
    found = Drift.build({(0, "conditional"): errors}, [1000, 500], ["single"] * 2, "tiny model")
    low, high = figures.plot_drift(found).axes[0].get_ylim()
    assert low > high
