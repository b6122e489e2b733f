"""What a run will be, told by the pipeline's own call with a transformer that returns zeros.

Nothing of the pipeline is changed: its call runs on a shallow copy of it, with a copy of its
scheduler and a stand-in for its transformer. Text encoders and the VAE's encoder do their work, the
transformer and the VAE's decoder do none.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from recast_probe._utils.compat import free_offloaded, quiet, stand_in
from recast_probe._utils.seeding import seeded
from recast_probe.errors import InputError, RecastProbeError, UnsupportedPipelineError
from recast_probe.pipelines.base import Schedule
from recast_probe.pipelines.flow_schedule import present_schedule

# inputs without which nothing can be told of a call
NEEDED = ("hidden_states", "timestep")


@dataclass(frozen=True)
class Rehearsal:
    """What the transformer is given in a run.

    Attributes:
        calls: inputs of every transformer call by name: all of those of the first step, and of
            later ones the ``timestep`` alone.
        per_step: transformer calls in each step.
        schedule: the steps that were made, as the scheduler has them.
    """

    calls: tuple[Mapping[str, Any], ...]
    per_step: int
    schedule: Schedule

    @property
    def first_step(self) -> tuple[Mapping[str, Any], ...]:
        """Inputs of the calls of the first step."""
        return self.calls[: self.per_step]


class _Steps:
    """Counts the calls of the transformer between the steps of a scheduler."""

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Any]] = []
        self.ends: list[int] = []
        self.timesteps: list[float] = []
        self.stochastic = False

    def called(self, inputs: Mapping[str, Any]) -> None:
        self.calls.append(inputs if not self.ends else {"timestep": inputs["timestep"]})

    def done(self, scheduler: Any) -> bool:
        """Whether the last step that a scheduler is set to was made."""
        timesteps: Any = getattr(scheduler, "timesteps", ())
        return bool(self.timesteps) and self.timesteps[-1] == float(timesteps[-1])

    def counted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        """A scheduler's ``step`` that is counted, and asked whether it draws noise."""

        @functools.wraps(step)
        def stepped(*arguments: Any, **options: Any) -> Any:
            timestep = arguments[1] if len(arguments) > 1 else options["timestep"]
            self.timesteps.append(float(timestep))
            self.ends.append(len(self.calls))
            output = arguments[0] if arguments else options["model_output"]
            before = _random_state(output)
            made = step(*arguments, **options)
            self.stochastic |= not torch.equal(before, _random_state(output))
            return made

        return stepped


def _random_state(tensor: torch.Tensor) -> torch.Tensor:
    """The global random state from which noise like this tensor is drawn."""
    return torch.cuda.get_rng_state(tensor.device) if tensor.is_cuda else torch.get_rng_state()


def rehearse(
    pipeline: Any,
    arguments: Mapping[str, Any],
    output: Callable[[Mapping[str, Any]], Any],
    *,
    transformer: torch.nn.Module | None = None,
    seed: int = 0,
) -> Rehearsal:
    """Make a run without its transformer; the pipeline stays as it is, and no callback is called.

    Args:
        arguments: keyword arguments of the pipeline call, without a generator.
        output: what stands for the transformer's output, from its inputs; see
            ``Family.rehearsed_output``.
        transformer: the part that is left out; by default the pipeline's ``transformer``.
        seed: of the noise.

    Raises:
        InputError: the pipeline does not take these arguments.
        UnsupportedPipelineError: its steps cannot be told from its scheduler, or its transformer is
            given something without a name.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline, tiny_image
        >>> call = {"prompt": "a cat", "image": tiny_image(), "num_inference_steps": 4}
        >>> family = rp.pipelines.find_family(build_tiny_pipeline())
        >>> found = rehearse(family.pipe, {**call, "max_area": 4096}, family.rehearsed_output)
        >>> len(found.calls), found.per_step, found.first_step[0]["encoder_hidden_states"].shape
        (4, 1, torch.Size([1, 512, 32]))
    """
    transformer = pipeline.transformer if transformer is None else transformer
    name, steps = type(pipeline).__name__, _Steps()

    def forward(*unnamed: Any, **inputs: Any) -> Any:
        lacking = [each for each in NEEDED if not isinstance(inputs.get(each), torch.Tensor)]
        if unnamed or lacking:
            raise UnsupportedPipelineError(
                f"{name} calls its transformer with {len(unnamed)} inputs that have no name and "
                f"without a tensor {' and '.join(lacking) or 'missing'}; it must be called by "
                f"name, with {' and '.join(NEEDED)}."
            )
        steps.called(inputs)
        return output(inputs)

    own, scheduler = copy.copy(pipeline), copy.deepcopy(pipeline.scheduler)
    vars(scheduler)["step"] = steps.counted(scheduler.step)
    places = [place for place, part in vars(pipeline).items() if part is transformer]
    if not places:
        raise UnsupportedPipelineError(
            f"{name} holds its transformer under no name of its own, so a run cannot be rehearsed."
        )
    vars(own).update({place: stand_in(transformer, forward) for place in places})
    # what offloading moved is moved back on the pipeline itself, below
    vars(own).update(scheduler=scheduler, maybe_free_model_hooks=lambda: None)
    try:
        with seeded(seed, pipeline), torch.no_grad(), quiet(own):
            own(**_rehearsed_arguments(own, arguments, seed))
    except (RecastProbeError, MemoryError, torch.OutOfMemoryError):
        raise
    # a pipeline that does not take its arguments raises nearly anything
    except Exception as error:
        # what follows the last step only makes an image of it
        if not steps.done(scheduler):
            raise InputError(
                f"{name} makes no run with these arguments ({type(error).__name__}: {error})."
            ) from error
    finally:
        free_offloaded(pipeline)
    return Rehearsal(tuple(steps.calls), _calls_per_step(name, steps), _schedule(scheduler, steps))


def _rehearsed_arguments(pipeline: Any, arguments: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The arguments of a call that decodes nothing and calls nobody back. Initial noise is drawn:
    one that is given may not fit, which the layout tells."""
    known = inspect.signature(type(pipeline).__call__).parameters
    found = {
        # a pipeline may write into a dictionary that it is given
        name: dict(value) if isinstance(value, dict) else value
        for name, value in arguments.items()
        if not name.startswith("callback") and name != "latents"
    }
    latent = {"output_type": "latent"} if "output_type" in known else {}
    return {**found, "generator": torch.Generator("cpu").manual_seed(seed), **latent}


def _calls_per_step(name: str, steps: _Steps) -> int:
    if not steps.ends:
        raise UnsupportedPipelineError(
            f"{name} made no step of its scheduler, so its steps cannot be told from it."
        )
    counts = np.diff(steps.ends, prepend=0).tolist()
    if len(set(counts)) > 1 or counts[0] < 1 or steps.ends[-1] != len(steps.calls):
        raise UnsupportedPipelineError(
            f"{name} calls its transformer {counts} times in its steps, and "
            f"{len(steps.calls)} times altogether; the probe needs as many calls in each step, and "
            "at least one."
        )
    return counts[0]


def _schedule(scheduler: Any, steps: _Steps) -> Schedule:
    """The last steps that a scheduler is set to, as many as were made."""
    found, made = present_schedule(scheduler), len(steps.timesteps)
    kept = Schedule(found.timesteps[-made:], found.sigmas[-made:], steps.stochastic)
    if kept.timesteps.tolist() != steps.timesteps:
        raise UnsupportedPipelineError(
            f"The run made steps at the timesteps {steps.timesteps}, and the last {made} that "
            f"{type(scheduler).__name__} is set to are {kept.timesteps.tolist()}; the probe needs "
            "a run of consecutive steps."
        )
    if not np.isfinite([kept.timesteps, kept.sigmas]).all():
        raise InputError(
            f"{type(scheduler).__name__} makes numbers that are not finite in a run of {made} "
            "steps; choose other sigmas or steps, or another scheduler."
        )
    return kept
