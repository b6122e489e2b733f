"""The steps of diffusers' flow-matching pipelines, whose shift follows the number of tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.families.base import Schedule


def calculated_shift(scheduler: Any, tokens: int) -> float:
    """By how much FLUX.1 and Qwen-Image shift the sigmas for so many generation tokens."""
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    config = scheduler.config
    return calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )


def unshifted_sigmas(arguments: Mapping[str, Any]) -> list[float]:
    """Sigmas of a call: those that were given, or evenly spaced ones from pure noise."""
    steps, given = arguments["num_inference_steps"], arguments.get("sigmas")
    return np.linspace(1.0, 1 / steps, steps).tolist() if given is None else list(given)


def shifted_schedule(
    pipeline: Any, steps: int, sigmas: list[float] | None, shift: float
) -> Schedule:
    """The steps of a call, as diffusers' pipelines have them made; the pipeline's scheduler stays.

    Args:
        sigmas: before the shift; None for the scheduler's own.

    Raises:
        InputError: the scheduler makes no such run.
    """
    from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

    scheduler = copy.deepcopy(pipeline.scheduler)
    with np.errstate(divide="ignore", invalid="ignore"):
        timesteps, _ = retrieve_timesteps(scheduler, steps, "cpu", sigmas=sigmas, mu=shift)
    if not bool(timesteps.isfinite().all()):
        raise InputError(
            f"This model's scheduler stretches its timesteps to end at "
            f"{scheduler.config.shift_terminal}, which it cannot do for steps={steps} from pure "
            "noise; ask for at least 2 steps."
        )
    count = len(timesteps)
    return Schedule(
        timesteps=np.asarray(timesteps, dtype=np.float64),
        sigmas=np.asarray(scheduler.sigmas[:count], dtype=np.float64),
    )
