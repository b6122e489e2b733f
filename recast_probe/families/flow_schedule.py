"""The steps of diffusers' flow-matching pipelines, whose shift follows the number of tokens."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from recast_probe.errors import InputError
from recast_probe.families.base import Schedule


def shifted_schedule(pipeline: Any, tokens: int, arguments: Mapping[str, Any]) -> Schedule:
    """The steps of a call, as FLUX.1 and Qwen-Image make them; the pipeline's scheduler stays.

    Args:
        tokens: generation tokens.
        arguments: ``num_inference_steps`` and, if given, ``sigmas``.

    Raises:
        InputError: the scheduler makes no such run.
    """
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift, retrieve_timesteps

    scheduler = copy.deepcopy(pipeline.scheduler)
    config = scheduler.config
    steps = arguments["num_inference_steps"]
    sigmas = arguments.get("sigmas")
    shift = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        timesteps, _ = retrieve_timesteps(
            scheduler,
            steps,
            "cpu",
            sigmas=np.linspace(1.0, 1 / steps, steps).tolist() if sigmas is None else list(sigmas),
            mu=shift,
        )
    if not bool(timesteps.isfinite().all()):
        raise InputError(
            f"This model's scheduler stretches its timesteps to end at {config.shift_terminal}, "
            f"which it cannot do for steps={steps} from pure noise; ask for at least 2 steps."
        )
    count = len(timesteps)
    return Schedule(
        timesteps=np.asarray(timesteps, dtype=np.float64),
        sigmas=np.asarray(scheduler.sigmas[:count], dtype=np.float64),
    )
