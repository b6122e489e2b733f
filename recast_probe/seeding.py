"""The whole run follows from its seed, and the random numbers of others stay as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def seeded(pipeline: Any, seed: int) -> Iterator[None]:
    """Inside, torch's global random states begin at a seed; afterwards, also after an error, they
    are as they were before.

    Some schedulers draw noise in their steps, and diffusers' pipelines hand them no generator, so
    it comes from the global state of the device that the latents are on.

    Args:
        pipeline: whose devices count; CUDA is left alone where the pipeline does not use it.
        seed: 0 to 2 ** 63 - 1.
    """
    cuda = pipeline._execution_device.type == "cuda"
    devices = list(range(torch.cuda.device_count())) if cuda else []
    with torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield
