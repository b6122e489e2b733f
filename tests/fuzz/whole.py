"""The whole files that are damaged, made by the bundled model and the tiny pipeline."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

from recast_probe import pocket
from recast_probe.probe import Probe
from tests import tiny


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
