"""Peak memory: what a block held, and the stages of a pipeline call."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from recast_probe._utils.memory import memory_by_stage, peak_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
MIB = 2**20


def test_what_a_block_held_and_let_go_of_is_counted():
    with peak_memory("cpu") as peak:
        held = np.ones(64 * MIB, np.uint8)
        del held
    assert peak.kind == "resident"
    assert peak.extra is not None
    assert 60 * MIB < peak.extra < 128 * MIB
    assert peak.total > peak.extra
    with peak_memory("cpu") as nothing:
        pass
    assert nothing.extra < 16 * MIB


def test_stages_in_order_and_a_pipeline_as_it_was(pipeline, probe, image):
    told: list[tuple[str, str]] = []
    with memory_by_stage(pipeline, "cpu", lambda stage, peak, kind: told.append((stage, kind))):
        probe.generate(image, "a fox", steps=1, progress=False)
    stages = ["text encoding", "reference encoding", "denoising", "decoding"]
    assert told == [(stage, "resident") for stage in stages]
    assert not {"encode_prompt", "prepare_latents"} & set(vars(pipeline))
    assert "decode" not in vars(pipeline.vae)
    told.clear()
    with memory_by_stage(pipeline, "cpu", lambda stage, peak, kind: told.append((stage, kind))):
        probe.profile(image, "a fox", steps=2, profile_steps=[0], progress=False)
    assert [stage for stage, _ in told] == stages[:3], "a profile is not decoded"
