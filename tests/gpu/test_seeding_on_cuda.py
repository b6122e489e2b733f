"""A run that draws noise on a CUDA device follows from its seed and leaves the states alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FlowMatchLCMScheduler

from recast_probe.probe import Probe
from recast_probe.testing import tiny

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def test_global_states_and_images():
    pipe = tiny.build_tiny_pipeline().to("cuda")
    pipe.scheduler = FlowMatchLCMScheduler.from_config(pipe.scheduler.config)
    probe, image = Probe(pipe), tiny.tiny_image()
    images = []
    for _ in range(2):
        torch.randn(5, device="cuda")
        before = torch.get_rng_state(), *torch.cuda.get_rng_state_all()
        result = probe.generate(image, "fox", steps=3, seed=1, progress=False)
        images.append(np.asarray(result.image))
        after = torch.get_rng_state(), *torch.cuda.get_rng_state_all()
        assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    np.testing.assert_array_equal(*images)
    asked = probe.pipeline_arguments(image, "fox", steps=3, seed=1)
    torch.manual_seed(1)
    np.testing.assert_array_equal(np.asarray(pipe(**asked).images[0]), images[0])
