"""Tokens without places: a strip in place of a map."""

from __future__ import annotations

import numpy as np
import pytest

from recast_probe import figures
from recast_probe.errors import InputError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile
from tests.own_warnings import no_warnings

pytestmark = no_warnings

TOKENS, BLOCKS = 8, 3


def strip_profile(score: np.ndarray) -> AttentionProfile:
    """score (step, block, token) of two images with 4 tokens each."""
    steps = len(score)
    mass = np.full((1, steps, BLOCKS, 1, 3, 3), np.nan)
    mass[..., 1, :] = [0, 0, 1]
    return AttentionProfile.build(
        score=score[None, :, :, None],
        mass=mass,
        conditional_entropy=np.ones((1, steps, BLOCKS, 1)),
        steps=range(steps),
        timesteps=np.linspace(1000, 500, steps),
        sigmas=np.linspace(1, 0.5, steps),
        blocks=range(BLOCKS),
        block_kinds=["double"] * BLOCKS,
        heads=[0],
        layout=TokenLayout(4, Grid(2, 2), (Grid(1, 4, placed=False),) * 2),
    )


@pytest.fixture
def profile() -> AttentionProfile:
    score = np.arange(1.0, 1 + 2 * BLOCKS * TOKENS).reshape(2, BLOCKS, TOKENS)
    return strip_profile(score / score.sum(-1, keepdims=True))


def drawn(axes) -> np.ndarray:
    return np.asarray(axes.collections[0].get_array()).reshape(-1, TOKENS)


def test_rows_are_the_mean_and_every_block(profile):
    figure = figures.plot_importance_by_token(profile)
    mean, blocks = figure.axes[:2]
    expected = profile.dataset["score"].values[0, :, :, 0].mean(0) * TOKENS
    np.testing.assert_allclose(drawn(mean)[0], expected.mean(0), rtol=1e-5)
    np.testing.assert_allclose(drawn(blocks), expected, rtol=1e-5)
    assert len(blocks.lines) == 1, "one line between two images"
    assert [text.get_text() for text in blocks.get_yticklabels()] == ["0", "1", "2"]
    assert any("blocks 0-2, steps 0-1" in text.get_text().lower() for text in figure.texts)
    figure.canvas.draw()


def test_a_selection(profile):
    figure = figures.plot_importance_by_token(profile.sel(blocks=[2], steps=1))
    np.testing.assert_allclose(drawn(figure.axes[1]), drawn(figure.axes[0]))
    with pytest.raises(InputError, match="steps holds 7"):
        figures.plot_importance_by_token(profile.sel(steps=7))


def test_removed_tokens_are_grey(profile):
    score = profile.dataset["score"].values[0, :, :, 0].copy()
    score[1, :, 5:] = np.nan
    figure = figures.plot_importance_by_token(strip_profile(score))
    masked = np.ma.getmaskarray(figure.axes[1].collections[0].get_array()).reshape(-1, TOKENS)
    assert masked[:, 5:].all()
    assert not masked[:, :5].any()
    score[1] = np.nan
    with pytest.raises(InputError, match="No reference token was present"):
        figures.plot_importance_by_token(strip_profile(score))


def test_a_map_is_refused(profile):
    with pytest.raises(InputError, match=r"no places in the image.*plot_importance_by_token"):
        figures.plot_importance(profile)
