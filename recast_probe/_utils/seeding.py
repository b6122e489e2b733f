"""The whole run follows from its seed, and the random numbers of others stay as they were."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from recast_probe._utils.compat import execution_device

# torch has one random state for all threads; who borrows it has it alone
_states = threading.RLock()


def _renew() -> None:
    """A process that is forked while another thread holds the lock would wait for ever."""
    global _states
    _states = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


@contextmanager
def seeded(seed: int, pipeline: Any = None) -> Iterator[None]:
    """Inside, torch's global random states begin at a seed; afterwards, also after an error, they
    are as they were before.

    Some schedulers draw noise in their steps, and diffusers' pipelines hand them no generator, so
    it comes from the global state of the device that the latents are on.

    Args:
        seed: 0 to 2 ** 63 - 1.
        pipeline: CUDA counts as well where it runs there.
    """
    cuda = pipeline is not None and execution_device(pipeline).type == "cuda"
    devices = list(range(torch.cuda.device_count())) if cuda else []
    with _states, torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.manual_seed_all(seed)
        yield
