"""Flow on arrays that are known, and against matrices multiplied out."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe.diagnostics.flow import flow, mediated_importance, rolled_out
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile

TEXT, GENERATION, REFERENCE = 2, 3, 4
BLOCKS = 4


def profile(score, mass, queries, **provenance) -> AttentionProfile:
    """Scores (step, block, token) and masses (step, block, 3, 3), for both of two heads."""
    steps, blocks = score.shape[:2]
    both = [np.repeat(each[None, :, :, None], 2, axis=3) for each in (score, mass)]
    return AttentionProfile.build(
        score=both[0],
        mass=both[1],
        conditional_entropy=np.zeros((1, steps, blocks, 2)),
        steps=range(steps),
        timesteps=np.linspace(1000, 1, steps),
        sigmas=np.linspace(1, 0, steps),
        blocks=range(blocks),
        block_kinds=["single"] * blocks,
        heads=[0, 1],
        layout=TokenLayout(TEXT, Grid(1, GENERATION), (Grid(1, REFERENCE),)),
        queries=queries,
        provenance={"seed": 0, **provenance},
    )


def random_run(seed: int, steps: int = 2):
    """Scores and masses of attention in which the tokens of a group look alike."""
    rng = np.random.default_rng(seed)
    mass = rng.dirichlet(np.ones(3), size=(steps, BLOCKS, 3))
    share = rng.dirichlet(np.ones(REFERENCE), size=(2, steps, BLOCKS))
    generation = share[0] * mass[..., 1, 2, None]
    text = share[1] * mass[..., 0, 2, None]
    return mass, generation, text


@pytest.mark.filterwarnings("ignore:In some steps all tokens")
def test_direct_only_and_through_text_only():
    uniform = np.full((1, 2, REFERENCE), 1 / REFERENCE)
    ramp = np.broadcast_to(np.array([0.1, 0.2, 0.3, 0.4]), (1, 2, REFERENCE))
    to = {"text": [1, 0, 0], "generation": [0, 1, 0], "reference": [0, 0, 1]}
    direct = np.array([[[to["text"], to["reference"], to["reference"]]] * 2], float)
    found = flow(
        profile(ramp, direct, "generation"), profile(0 * uniform, direct, "text"), rollout=True
    )
    np.testing.assert_allclose(found.direct[0], ramp[0, 0], rtol=1e-6)
    assert float(found.direct_total[0]) == pytest.approx(1)
    assert found.mediated_share == 0
    assert np.isnan(found.spearman)
    np.testing.assert_array_equal(found.rollout[0], found.rollout[1])

    through = np.array([[[to["reference"], to["text"], to["reference"]]] * 2], float)
    found = flow(
        profile(0 * uniform, through, "generation"), profile(ramp, through, "text"), rollout=True
    )
    assert found.mediated_share == 1
    # the first of two blocks has no earlier one to have read in
    np.testing.assert_allclose(found.mediated[0], ramp[0, 0] / 2, rtol=1e-6)
    assert float(found.rollout.sel(path="without text").sum()) == 0
    # read by the text in block 0 (a half of it), handed on in block 1 (a half again)
    np.testing.assert_allclose(found.rollout[0, 0], ramp[0, 0] / 4, rtol=1e-6)


def test_mediated_importance_is_the_product_of_earlier_and_later_blocks():
    mass, _, text = random_run(0)
    found = mediated_importance(mass[..., 1, 0], text)
    for step in range(2):
        expected = np.zeros(REFERENCE)
        for block in range(1, BLOCKS):
            expected += mass[step, block, 1, 0] * text[step, :block].mean(0) / BLOCKS
        np.testing.assert_allclose(found[step], expected)


def test_rollout_is_the_product_of_the_whole_matrices():
    """Tokens of a group that look alike: then following group means is exact.

    Reference tokens look at the reference by looking at themselves, which is what counting their
    exchange as their own means.
    """
    mass, generation, text = random_run(1, steps=1)
    total = TEXT + GENERATION + REFERENCE
    spans = [slice(0, TEXT), slice(TEXT, TEXT + GENERATION), slice(TEXT + GENERATION, total)]
    whole = np.eye(total)
    for block in range(BLOCKS):
        attention = np.zeros((total, total))
        for query, rows in enumerate(spans):
            for key in (0, 1):
                width = spans[key].stop - spans[key].start
                attention[rows, spans[key]] = mass[0, block, query, key] / width
        attention[spans[0], spans[2]] = text[0, block]
        attention[spans[1], spans[2]] = generation[0, block]
        attention[spans[2], spans[2]] = mass[0, block, 2, 2] * np.eye(REFERENCE)
        np.testing.assert_allclose(attention.sum(1), 1)
        whole = (0.5 * np.eye(total) + 0.5 * attention) @ whole
    expected = whole[spans[1], spans[2]].mean(0)
    found = rolled_out(mass, generation, text)
    np.testing.assert_allclose(found[0], expected)
    without = rolled_out(mass, generation, text, through_text=False)
    assert (without < found).all()


def test_agreement_of_the_two_rankings():
    mass, generation, text = random_run(2)
    order = np.array([0.1, 0.2, 0.3, 0.4])
    generation = mass[..., 1, 2, None] * order
    for sign, expected in ((1, 1), (-1, -1)):
        text = mass[..., 0, 2, None] * order[::sign]
        found = flow(profile(generation, mass, "generation"), profile(text, mass, "text"), 0.5)
        assert found.spearman == pytest.approx(expected)
        assert found.kendall == pytest.approx(expected)
        assert found.jaccard == (1 if sign > 0 else 0)
        assert found.summary()["spearman"] == found.spearman
        assert "through the text" in repr(found)
        assert "blocks 0-3" in found._repr_html_()


def test_profiles_that_do_not_belong_together_are_refused():
    mass, generation, text = random_run(3)
    one, other = profile(generation, mass, "generation"), profile(text, mass, "text")
    with pytest.raises(InputError, match="of text and generation"):
        flow(other, one)
    with pytest.raises(InputError, match="with another seed"):
        flow(one, profile(text, mass, "text", seed=1))
    with pytest.raises(InputError, match="different blocks"):
        flow(one, profile(text[:, :2], mass[:, :2], "text"))
    gaps = mass.copy()
    gaps[:, :, [0, 2]] = np.nan
    flow(profile(generation, gaps, "generation"), profile(text, gaps, "text"))
    with pytest.raises(InputError, match="mass_table"):
        flow(profile(generation, gaps, "generation"), other, rollout=True)
