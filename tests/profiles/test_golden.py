"""A file of format 2, kept for good: what was written once must open, with the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from recast_probe.diagnostics import entropy, skew
from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile

FILE = Path(__file__).with_name("version_2.nc")
LAYOUT = TokenLayout(text=3, generation=Grid(2, 2), references=(Grid(1, 2), Grid(2, 1)))
# (branch, step, block, head)
SHAPE = (2, 2, 3, 2)


def numbers() -> dict[str, np.ndarray]:
    """Eighths and sixteenths, which float32 holds exactly; one token is absent in step 1."""
    place = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    score = ((place[..., None] + np.arange(4)) % 4 + 1) / 16
    score[:, 1, ..., 3] = np.nan
    mass = np.broadcast_to(np.array([[4, 2, 2], [1, 5, 2], [3, 1, 4]]) / 8, (*SHAPE, 3, 3))
    return {
        "score": score,
        "mass": mass,
        "conditional_entropy": place / 32,
        "mass_weighted_conditional_entropy": place / 64,
    }


def golden() -> AttentionProfile:
    """What the file was written from."""
    return AttentionProfile.build(
        **numbers(),
        steps=[0, 4],
        timesteps=[1000.0, 437.5],
        sigmas=[1.0, 0.4375],
        blocks=[0, 2, 5],
        block_kinds=["double", "double", "double", "single", "single", "single"],
        heads=[1, 3],
        layout=LAYOUT,
        branches=("conditional", "unconditional"),
        provenance={"prompt": "a fox \N{FOX FACE}", "seed": 3, "nested": {"scale": [0.5, None]}},
    )


def test_every_number_is_the_one_that_was_written():
    profile = AttentionProfile.load(FILE)
    dataset = profile.dataset
    for name, expected in numbers().items():
        assert dataset[name].dtype == np.float32
        np.testing.assert_array_equal(dataset[name], expected.astype(np.float32), err_msg=name)
    expected = {
        "branch": ["conditional", "unconditional"],
        "step": [0, 4],
        "timestep": [1000.0, 437.5],
        "sigma": [1.0, 0.4375],
        "block": [0, 2, 5],
        "head": [1, 3],
        "query_group": ["text", "generation", "reference"],
        "key_group": ["text", "generation", "reference"],
        "reference": [0, 0, 1, 1],
        "row": [0, 0, 0, 1],
        "column": [0, 1, 0, 0],
    }
    for name, values in expected.items():
        assert dataset[name].values.tolist() == values, name
    assert dataset.attrs["format_version"] == 2
    assert profile.layout == LAYOUT
    assert profile.block_kinds == ["double"] * 3 + ["single"] * 3
    assert profile.provenance == {
        "prompt": "a fox \N{FOX FACE}",
        "seed": 3,
        "nested": {"scale": [0.5, None]},
    }


def test_it_is_the_profile_that_is_built_today():
    assert AttentionProfile.load(FILE).identical(golden())


def test_diagnostics_of_it():
    profile = AttentionProfile.load(FILE).sel(steps=0)
    found = entropy(profile)
    np.testing.assert_allclose(found.conditional, [np.arange(6).mean() / 32], rtol=1e-6)
    share = numbers()["score"][0, 0].mean((0, 1))
    share = share / share.sum()
    np.testing.assert_allclose(found.marginal, [-(share * np.log2(share)).sum()], rtol=1e-6)
    assert skew(profile, fraction=0.25).mean_of_block_top_shares > 0.25
