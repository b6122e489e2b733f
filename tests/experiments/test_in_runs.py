"""What tokens are worth is what runs with them give; controls change what they say they change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe import figures, rank
from recast_probe.diagnostics import Interval
from recast_probe.errors import InputError
from recast_probe.experiments.faithfulness import (
    SubsetValue,
    faithfulness_curves,
    randomised_blocks,
    sanity_checks,
    shuffled_reference,
)
from recast_probe.interventions import Keep
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.testing import tiny

QUIET = {"steps": 2, "progress": False}


def redness(picture) -> float:
    return float(np.asarray(picture, np.float64)[..., 0].mean())


def test_curves_are_runs_with_and_without_the_best_tokens(probe, image):
    worth = SubsetValue(probe, image, "fox", redness, steps=2)
    ranking = rank.random(16, seed=1)
    curves = faithfulness_curves(worth, ranking, (0.25, 0.5))
    assert curves.counts.tolist() == [0, 4, 8, 16]

    def with_tokens(tokens) -> float:
        keep = Keep(tuple(int(token) for token in tokens))
        return redness(probe.generate(image, "fox", interventions=[keep], **QUIET).image)

    assert curves.insertion[1] == with_tokens(ranking.order[:4])
    assert curves.deletion[1] == with_tokens(ranking.order[4:])
    plain = redness(probe.generate(image, "fox", **QUIET).image)
    assert curves.full == curves.deletion[0] == plain
    none = redness(probe.generate(None, "fox", **QUIET).image)
    assert curves.none == curves.deletion[-1] == pytest.approx(none, abs=0.05)
    assert worth.runs == 6
    # the reversed ranking needs one new run for each share but the middle one
    other = faithfulness_curves(worth, ranking.reversed(), (0.25, 0.5))
    assert worth.runs == 8
    assert other.insertion[2] == curves.deletion[2]
    assert "insertion area" in repr(curves)


def test_what_has_no_curves(probe, image):
    with pytest.raises(InputError, match="no reference tokens"):
        SubsetValue(probe, None, "fox", redness)
    with pytest.raises(InputError, match="one prompt"):
        SubsetValue(probe, image, ["fox", "hen"], redness)
    worth = SubsetValue(probe, image, "fox", lambda picture: np.nan, steps=1)
    with pytest.raises(InputError, match="orders 4 tokens"):
        faithfulness_curves(worth, rank.random(4, seed=0))
    with pytest.raises(InputError, match="is nan"):
        worth(np.arange(3))


def state(pipe):
    return {name: value.clone() for name, value in pipe.transformer.state_dict().items()}


def test_shuffled_weights_come_back_to_the_bit(image):
    pipe = tiny.build_tiny_pipeline(seed=2)
    probe = Probe(pipe)
    before, fingerprint = state(pipe), probe.fingerprint
    seen = []

    def look():
        seen.append((state(pipe), probe.fingerprint))
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"), randomised_blocks(probe, [1, 3], seed=0):
        look()
    ((inside, other),) = seen
    assert other != fingerprint
    changed = {name for name in before if not torch.equal(before[name], inside[name])}
    assert {".".join(name.split(".")[:2]) for name in changed} == {
        "transformer_blocks.1",
        "single_transformer_blocks.1",
    }
    for name in changed:
        values = (each[name].flatten().sort().values for each in (before, inside))
        assert torch.equal(*values)
    after = state(pipe)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert probe.fingerprint == fingerprint
    with pytest.raises(InputError, match="no block 5"), randomised_blocks(probe, [5]):
        pass


def test_a_shuffled_reference_has_its_squares_elsewhere(image):
    shuffled, order = shuffled_reference(image, Grid(4, 4), seed=3)
    assert shuffled.size == image.size
    own, moved = np.asarray(image), np.asarray(shuffled)
    for place, token in enumerate(order):
        (row, column), (r, c) = divmod(place, 4), divmod(int(token), 4)
        np.testing.assert_array_equal(
            moved[row * 16 : row * 16 + 16, column * 16 : column * 16 + 16],
            own[r * 16 : r * 16 + 16, c * 16 : c * 16 + 16],
        )
    assert sorted(order) == list(range(16))
    assert shuffled_reference(image.resize((70, 66)), Grid(4, 4))[0].size == (68, 64)


def test_the_checks_tell_apart_what_a_ranking_depends_on(probe, image):
    """Rankings that look at nothing, at the image alone, or at the weights alone."""

    def blind(picture, prompt, seed):
        return rank.random(16, seed=7)

    def by_image(picture, prompt, seed):
        tokens = np.asarray(picture, np.float64).reshape(4, 16, 4, 16, 3).mean((1, 3, 4))
        return rank.Ranking.from_score(tokens.ravel(), "brightness", {})

    def by_weights(picture, prompt, seed):
        weight = probe.family.block_modules()[4].attn.to_q.weight
        return rank.Ranking.from_score(weight.detach()[0, :16].numpy(), "weights", {})

    def checked(how):
        table = sanity_checks(probe, image, "fox", how, other_prompt="hen")
        return table.set_index("check")["spearman"]

    np.testing.assert_allclose(checked(blind).drop("shuffled reference, by content"), 1)
    found = checked(by_image)
    assert found["shuffled reference, by content"] == pytest.approx(1)
    assert abs(found["shuffled reference, by place"]) < 0.7
    assert found["from block 0 on randomised"] == pytest.approx(1)
    found = checked(by_weights)
    assert found["another prompt"] == found["block 2 randomised"] == pytest.approx(1)
    for name in ("block 4 randomised", "from block 4 on randomised", "from block 0 on randomised"):
        assert found[name] < 0.8
    assert len(found) == 4 + 2 * tiny.BLOCKS


def test_the_figure(probe):
    points = [Interval(0.5, 0.4, 0.6, 0.95, 3), Interval(0.7, 0.6, 0.8, 0.95, 3)]
    curves = {"cross-image": points, "random": points}
    figures.plot_faithfulness([0, 1], curves, curves, score="identity", selection="tiny")
    with pytest.raises(InputError, match="same rankings"):
        figures.plot_faithfulness([0, 1], curves, {}, score="", selection="")
    with pytest.raises(InputError, match="one value for each share"):
        figures.plot_faithfulness([0, 0.5, 1], curves, curves, score="", selection="")
