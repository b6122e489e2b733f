"""The steps of diffusers' flow-matching pipelines, whose shift follows the number of tokens.

Schedulers are asked and never known by name: a copy is set as the pipeline sets it and takes every
step on a few numbers, so that one which fails, or draws noise, shows it before anything runs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from recast_probe._utils.seeding import seeded
from recast_probe.errors import InputError
from recast_probe.pipelines.base import Schedule

USUAL = "pipe.scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipe.scheduler.config)"


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


def unshifted_sigmas(arguments: Mapping[str, Any]) -> Any:
    """Sigmas of a call: those that were given, as they are, or evenly spaced from pure noise."""
    steps, given = arguments["num_inference_steps"], arguments.get("sigmas")
    return np.linspace(1.0, 1 / steps, steps) if given is None else given


def shifted_schedule(pipeline: Any, steps: int, sigmas: Any, shift: float) -> Schedule:
    """The steps of a call, as diffusers' pipelines have them made; the pipeline's scheduler stays.

    Args:
        sigmas: before the shift, as the pipeline hands them on; None for the scheduler's own.

    Raises:
        InputError: the scheduler makes no such run in this pipeline.
    """
    from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

    scheduler = copy.deepcopy(pipeline.scheduler)
    name, where = type(scheduler).__name__, type(pipeline).__name__
    try:
        with np.errstate(divide="ignore", invalid="ignore"):
            timesteps, _ = retrieve_timesteps(scheduler, steps, "cpu", sigmas=sigmas, mu=shift)
            schedule = present_schedule(scheduler)
            finite = np.isfinite([schedule.timesteps, schedule.sigmas]).all()
            if not finite and scheduler.config.get("shift_terminal"):
                raise InputError(
                    f"This model's scheduler stretches its timesteps to end at "
                    f"{scheduler.config.shift_terminal}, which it cannot do for steps={steps} from "
                    "pure noise; ask for at least 2 steps."
                )
            stochastic, finite_steps = _rehearse(scheduler, timesteps)
    except InputError:
        raise
    # a scheduler that does not fit raises nearly anything
    except Exception as error:
        raise InputError(
            f"{name} makes no run of {steps} steps in {where} ({type(error).__name__}: {error}). "
            f"Set a scheduler for flow matching, such as {USUAL}."
        ) from error
    if not finite or not finite_steps:
        raise InputError(
            f"{name} makes numbers that are not finite in a run of {steps} steps of {where}; "
            f"choose other sigmas or steps, or another scheduler, such as {USUAL}."
        )
    return Schedule(schedule.timesteps, schedule.sigmas, stochastic)


def present_schedule(scheduler: Any) -> Schedule:
    """The steps that a scheduler is set to, with the sigmas that it reports.

    Raises:
        InputError: it has the transformer called several times a step, or reports no sigmas.
    """
    name = type(scheduler).__name__
    order, sigmas = getattr(scheduler, "order", 1), getattr(scheduler, "sigmas", None)
    if order != 1:
        raise InputError(
            f"{name} has the transformer called {order} times a step, and the probe takes each "
            f"call for a step; set a scheduler of order 1, such as {USUAL}."
        )
    timesteps = _float64(scheduler.timesteps)
    if sigmas is None or len(sigmas) < len(timesteps):
        found = "no" if sigmas is None else len(sigmas)
        raise InputError(
            f"{name} reports {found} sigmas for {len(timesteps)} timesteps; set another scheduler, "
            f"such as {USUAL}."
        )
    return Schedule(timesteps, _float64(sigmas)[: len(timesteps)])


def timestep_tolerance(timestep: torch.Tensor, expected: float) -> float:
    """By how much the transformer's timestep may differ from the scheduler's, in units of the
    latter: pipelines round it to the dtype of the latents, or to whole numbers."""
    if not timestep.is_floating_point():
        return 1.0
    return 4 * torch.finfo(timestep.dtype).eps * max(expected, 1.0)


def _float64(values: Any) -> np.ndarray:
    return np.asarray(values.cpu() if isinstance(values, torch.Tensor) else values, np.float64)


def _rehearse(scheduler: Any, timesteps: torch.Tensor) -> tuple[bool, bool]:
    """Take all steps on a few numbers, in the shape in which pipelines hold their latents.

    Returns:
        Whether the scheduler drew from torch's global random state, and whether all that came out
        was finite.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    sample, output = torch.randn(2, 1, 4, 4, generator=generator)
    with seeded(0), torch.no_grad():
        before = torch.get_rng_state()
        scheduler.set_begin_index(0)
        for timestep in timesteps:
            sample = scheduler.step(output, timestep, sample, return_dict=False)[0]
        return not torch.equal(before, torch.get_rng_state()), bool(sample.isfinite().all())
