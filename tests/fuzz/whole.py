"""The whole files that are damaged, made by the bundled model and the tiny pipeline."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np

from recast_probe import pocket
from recast_probe.layout import Grid, TokenLayout
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.testing import tiny


def make_whole_files(folder: Path) -> Path:
    """A folder with profile.nc, activations.safetensors and model/."""
    base = folder / "whole"
    base.mkdir()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        probe, sample = Probe.pocket(), pocket.samples()[0]
        chosen = {"steps": 2, "progress": False}
        profile = probe.profile(sample.image, sample.prompts[0], blocks=[0, 3], **chosen)
        profile.save(base / "profile.nc")
        activations = probe.record(
            *(sample.image, sample.prompts[0]),
            **{"record_steps": [0, 1], "blocks": [1], "indices": list(range(0, 256, 16)), **chosen},
        )
        activations.save(base / "activations.safetensors")
        tiny.build_tiny_pipeline().save_pretrained(base / "model")
    return base


def tiny_profile() -> AttentionProfile:
    """A profile of drawn numbers, that needs no run."""
    rng = np.random.default_rng(0)
    shape = (1, 2, 3, 2)
    return AttentionProfile.build(
        score=rng.dirichlet(np.ones(64), shape),
        mass=rng.dirichlet(np.ones(3), (*shape, 3)),
        conditional_entropy=rng.uniform(1, 5, shape),
        steps=[0, 1],
        timesteps=[1000.0, 500.0],
        sigmas=[1.0, 0.5],
        blocks=[0, 1, 2],
        block_kinds=["double", "single", "single"],
        heads=[0, 1],
        layout=TokenLayout(8, Grid(8, 8), (Grid(8, 8),)),
        provenance={"prompt": "a fox", "image": {"width": 64, "height": 64}, "seed": 0},
    )
