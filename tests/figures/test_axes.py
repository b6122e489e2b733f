"""Every figure draws into given axes, one for each of its panels, and refuses others."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.text import Text

from recast_probe import diagnostics, figures
from recast_probe.diagnostics import Interval
from recast_probe.diagnostics.correspondence import Correspondence
from recast_probe.diagnostics.drift import QUANTITIES, Drift
from recast_probe.errors import InputError
from recast_probe.experiments.attribution_result import Attribution
from recast_probe.figures.style import house_style
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.testing.planted_received import planted_received
from tests.own_warnings import no_warnings

pytestmark = no_warnings

GRID = Grid(3, 4)
RANDOM = np.random.default_rng(0)
CURVE = [Interval(value, value - 0.1, value + 0.1, 0.95, 5) for value in (0.1, 0.6, 0.9)]


def made(queries: str = "generation", grid: Grid = GRID) -> AttentionProfile:
    """Three blocks of two heads: the first copies, the second broadcasts."""
    score = np.random.default_rng(1).dirichlet(np.ones(grid.size), size=(1, 2, 3, 2)) / 2
    conditional = np.broadcast_to([0.2, 3.5], (1, 2, 3, 2))
    return AttentionProfile.build(
        score=score,
        mass=np.random.default_rng(2).dirichlet(np.ones(3), size=(1, 2, 3, 2, 3)),
        conditional_entropy=conditional,
        mass_weighted_conditional_entropy=conditional,
        steps=[0, 1],
        timesteps=[1000, 500],
        sigmas=[1, 0.5],
        blocks=[0, 1, 2],
        block_kinds=["double", "single", "single"],
        heads=[0, 1],
        layout=TokenLayout(2, Grid(4, 4), (grid,)),
        queries=queries,
    )


def attribution(*dims: str) -> Attribution:
    names = [f"{name}{end}" for name in ("effect", "distance") for end in ("", "_low", "_high")]
    shape = {"block": 3, "head": 2}
    data = {name: (dims, RANDOM.normal(size=[shape[each] for each in dims])) for name in names}
    labels = {each: range(shape[each]) for each in dims}
    edge = ("reference", "generation")
    return Attribution(xr.Dataset(data, labels), dims[-1], "identity", edge, None, 0.5, "cut alone")


def correspondence() -> Correspondence:
    maps = {"place": (16, 2), "best_place": (16, 2), "expected_place": (16, 2)}
    arrays = {name: RANDOM.random(maps.get(name, 16)) for name in (*maps, "peak", "entropy")}
    arrays |= {"best": RANDOM.integers(0, GRID.size, 16), "mass": np.full(16, 0.3)}
    labelled = {n: xr.DataArray(a, dims=("query", "axis")[: a.ndim]) for n, a in arrays.items()}
    return Correspondence(**labelled, generation=Grid(4, 4), reference=GRID, selection="one step")


def drift() -> Drift:
    errors = {name: RANDOM.random((2, 3)) for name in QUANTITIES}
    rows = {(0, "conditional"): errors}
    return Drift.build(rows, [1000, 500], ["double", "single", "single"], "tiny")


@pytest.fixture(scope="module")
def results() -> dict[str, diagnostics.Result]:
    profile = made()
    mask = np.zeros((3, 4), bool)
    mask[1:, 1:3] = True
    found = [
        diagnostics.skew(profile),
        diagnostics.entropy(profile),
        diagnostics.overlap(profile, mask),
        diagnostics.stability_over(profile, "block"),
        diagnostics.copy_heads(profile, threshold=0.5, min_mass=0),
        diagnostics.flow(profile, made("text")),
        correspondence(),
        diagnostics.alignment(correspondence()),
        diagnostics.sinks([planted_received(seed, high=[0]) for seed in range(6)], draws=99),
        drift(),
        attribution("block", "head"),
    ]
    return {result.name: result for result in found}


PANELS = {
    "skew": 1,
    "entropy": 2,
    "overlap": 3,
    "stability": 1,
    "copy_heads": 1,
    "flow": 4,
    "correspondence": 2,
    "alignment": 2,
    "sinks": 2,
    "drift": 3,
    "attribution": 1,
}


def drawers(picture) -> dict:
    """How to call the figures that are of no result, with their numbers of panels."""
    arms = {"full": [0.8, 0.7], "none": [0.2, 0.4]}
    intervals = {arm: diagnostics.bootstrap_mean(values) for arm, values in arms.items()}
    table = xr.DataArray(
        RANDOM.random((3, 2)), {"block": [0, 1, 2], "step": [0, 1]}, ("block", "step")
    )
    curves = {"ReCAST": CURVE}
    row = {"ReCAST": picture, "none": None}
    selection = {"selection": "two subjects"}
    shares = [0, 0.5, 1]
    return {
        "importance": (4, lambda axes: figures.plot_importance(made(), axes=axes)),
        "importance over an image": (
            5,
            lambda axes: figures.plot_importance(made(), picture, axes=axes),
        ),
        "importance by token": (
            2,
            lambda axes: figures.plot_importance_by_token(
                made(grid=Grid(1, 12, placed=False)), axes=axes
            ),
        ),
        "arms": (
            1,
            lambda axes: figures.plot_arms(arms, intervals, metric="m", axes=axes, **selection),
        ),
        "budgets": (
            1,
            lambda axes: figures.plot_budgets({"a": [4, 2]}, 4, axes=axes, **selection),
        ),
        "causal map": (
            2,
            lambda axes: figures.plot_causal_map(
                {"pixels": table, "identity": table}, axes=axes, **selection
            ),
        ),
        "faithfulness": (
            2,
            lambda axes: figures.plot_faithfulness(
                shares, curves, curves, score="identity", axes=axes, **selection
            ),
        ),
        "images": (
            6,
            lambda axes: figures.plot_images([row] * 2, ["x", "y"], axes=axes, **selection),
        ),
        "attribution of blocks": (
            1,
            lambda axes: figures.plot_attribution(attribution("block"), "effect", axes=axes),
        ),
        "flow over an image": (
            5,
            lambda axes: diagnostics.flow(made(), made("text")).plot(image=picture, axes=axes),
        ),
    }


OTHERS = (*drawers(None),)


def draw(name, results, picture):
    if name in PANELS:
        return PANELS[name], lambda axes: results[name].plot(axes=axes)
    return drawers(picture)[name]


@pytest.mark.parametrize("name", [*PANELS, *OTHERS])
def test_a_figure_is_drawn_into_given_axes(name, results, picture):
    count, drawn = draw(name, results, picture)
    with house_style():
        mine = Figure(figsize=(3 * count, 3))
        axes = mine.subplots(1, count, squeeze=False)
    assert drawn(axes) is mine, "the figure of the axes is returned"
    for each in axes[0]:
        assert each.has_data() or each.texts or each.get_facecolor() != (1, 1, 1, 1)
    assert not mine.texts, "texts around the panels are the caller's"
    with house_style():
        mine.draw_without_rendering()


@pytest.mark.parametrize("name", [*PANELS, *OTHERS])
def test_without_axes_a_figure_says_what_it_is_of(name, results, picture):
    _, drawn = draw(name, results, picture)
    figure = drawn(None)
    with house_style():
        figure.draw_without_rendering()
    title, *_, selection = [text.get_text() for text in figure.texts]
    assert len(title) > 10
    assert selection
    if name in PANELS:
        start = results[name].selection[:12].lower()
        assert selection.lower().startswith(start)


@pytest.mark.parametrize("name", [*PANELS, *OTHERS])
def test_other_numbers_of_axes_are_refused(name, results, picture):
    count, drawn = draw(name, results, picture)
    axes = Figure().subplots(1, count + 1)
    with pytest.raises(InputError, match=rf"{count} panels?.*not {count + 1} of"):
        drawn(axes)


def test_what_is_no_axes_is_refused(results):
    figure = Figure()
    one = figure.subplots()
    assert results["skew"].plot(axes=one) is figure
    for wrong, message in ((figure, "1 of Figure"), ([], "0 of nothing"), ([one, 3], "2 of")):
        with pytest.raises(InputError, match=message):
            results["skew"].plot(axes=wrong)
    with pytest.raises(InputError, match="one matplotlib Figure"):
        results["entropy"].plot(axes=[one, Figure().subplots()])


def words(axes) -> str:
    return "\n".join(text.get_text() for text in axes.findobj(Text))


def test_copy_heads_are_dotted(results):
    found = results["copy_heads"]
    axes = found.plot().axes[0]
    (dots,) = axes.lines
    places = {(x - 0.5, y - 0.5) for x, y in dots.get_xydata()}
    assert places == {(float(block), float(head)) for block, head in found.heads}
    assert places, "the planted heads copy"
    cells = np.asarray(axes.collections[0].get_array()).reshape(2, 3)
    np.testing.assert_allclose(cells, found.information.transpose("head", "block"))


def test_flow_stacks_the_groups_and_maps_the_tokens(results):
    found = results["flow"]
    figure = found.plot()
    bars, maps = figure.axes[:2], figure.axes[2:]
    for axes, query in zip(bars, ("generation", "text"), strict=True):
        heights = np.array([bar.get_height() for bar in axes.patches]).reshape(3, -1)
        np.testing.assert_allclose(heights.sum(0), 1, rtol=1e-6)
        expected = found.mass.sel(query_group=query, key_group="reference").mean(("step", "head"))
        np.testing.assert_allclose(heights[2], expected, rtol=1e-6)
    titles = [axes.get_title(loc="left") for axes in maps]
    assert titles == ["Read directly", "Through the text"]
    assert all(axes.images[0].get_array().shape[:2] == (3, 4) for axes in maps)
    several = made(grid=Grid(1, 12, placed=False))
    text = made("text", Grid(1, 12, placed=False))
    with pytest.raises(InputError, match="12 tokens without places"):
        diagnostics.flow(several, text).plot()


def test_correspondence_draws_an_arrow_for_each_token(results):
    found = results["correspondence"]
    left, right = found.plot().axes
    arrows = left.collections[0]
    np.testing.assert_allclose(arrows.get_offsets(), found.place.values[:, ::-1])
    np.testing.assert_allclose(np.stack([arrows.V, arrows.U], 1), found.displacement.values)
    assert len(right.collections[0].get_offsets()) == 16
    mean = found.plot(expected=True).axes[0].collections[0]
    step = found.expected_place.values - found.place.values
    np.testing.assert_allclose(np.stack([mean.V, mean.U], 1), step)


def test_attribution_draws_every_head_or_every_interval():
    heads = attribution("block", "head")
    cells = heads.plot(value="effect").axes[0].collections[0].get_array()
    np.testing.assert_allclose(np.reshape(cells, (2, 3)), heads.data["effect"].values.T)
    blocks = attribution("block")
    axes = blocks.plot().axes[0]
    np.testing.assert_allclose(axes.lines[1].get_ydata(), blocks.data["distance"])
    ends = np.array([segment[:, 1] for segment in axes.collections[0].get_segments()])
    np.testing.assert_allclose(ends[:, 0], blocks.data["distance_low"])
    with pytest.raises(InputError, match="'mass'"):
        blocks.plot(value="mass")
