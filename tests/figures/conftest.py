"""Results of a synthetic run: six blocks look at a blob, the first and last hardly."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from recast_probe.layout import Grid, TokenLayout
from recast_probe.profiles.profile import AttentionProfile

ROWS, COLUMNS, STEPS, HEADS = 6, 8, 4, 2
KINDS = ("double", "single", "single", "single", "single", "single")


def blob() -> np.ndarray:
    """A hill (rows, columns) in the middle of the reference."""
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    return np.exp(-(((rows - 2.5) / 1.4) ** 2) - ((columns - 3.5) / 1.8) ** 2)


def make_profile(seed: int) -> AttentionProfile:
    """A profile whose middle blocks look at the blob."""
    random = np.random.default_rng(seed)
    strength = np.array([0.0, 1.0, 3.0, 4.0, 2.0, 0.1])[None, None, :, None, None]
    noise = random.gamma(2, 0.1, (1, STEPS, len(KINDS), HEADS, ROWS * COLUMNS))
    score = 0.3 + strength * blob().ravel() + noise
    score = 0.4 * score / score.sum(axis=-1, keepdims=True)
    mass = np.full((1, STEPS, len(KINDS), HEADS, 3, 3), 1 / 3)
    mass[..., 1, :] = [0.1, 0.5, 0.4]
    return AttentionProfile.build(
        score=score,
        mass=mass,
        conditional_entropy=np.full((1, STEPS, len(KINDS), HEADS), 3.0),
        steps=np.arange(STEPS),
        timesteps=np.linspace(1000, 250, STEPS),
        sigmas=np.linspace(1, 0.25, STEPS),
        blocks=np.arange(len(KINDS)),
        block_kinds=list(KINDS),
        heads=np.arange(HEADS),
        layout=TokenLayout(text=4, generation=Grid(6, 6), references=(Grid(ROWS, COLUMNS),)),
        provenance={"seed": seed},
    )


@pytest.fixture(scope="session")
def profile() -> AttentionProfile:
    return make_profile(0)


@pytest.fixture(scope="session")
def profiles() -> list[AttentionProfile]:
    return [make_profile(seed) for seed in range(4)]


@pytest.fixture(scope="session")
def mask() -> np.ndarray:
    return blob() > 0.45


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    rows, columns = np.mgrid[0:96, 0:128]
    waves = 127 + 100 * np.sin(rows / 9) * np.cos(columns / 11)
    return Image.fromarray(np.stack([waves, rows, columns], axis=-1).astype(np.uint8))
