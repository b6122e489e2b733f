"""Turns what a user asks for into the arguments of one pipeline call, or says what is wrong."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from recast_probe.checks import whole_number
from recast_probe.errors import InputError
from recast_probe.families.base import Family, Schedule
from recast_probe.images import ImageSources, load_images
from recast_probe.layout import TokenLayout

# decided by the probe's own parameters
RESERVED = {
    "self": "",
    "image": "image",
    "prompt": "prompt",
    "prompt_embeds": "prompt",
    "pooled_prompt_embeds": "prompt",
    "negative_prompt_embeds": "negative_prompt",
    "negative_pooled_prompt_embeds": "negative_prompt",
    "num_inference_steps": "steps",
    "generator": "seed",
    "num_images_per_prompt": "several calls with different seeds",
    "output_type": "",
    "return_dict": "",
}


@dataclass(frozen=True)
class Request:
    """One pipeline call, checked.

    Attributes:
        prompts: one per batch item.
        images: the references as they are handed to the pipeline.
        seed: the noise of every batch item.
        arguments: keyword arguments of the pipeline call, without the generator.
        layout: predicted token layout.
        schedule: predicted steps.
    """

    prompts: tuple[str, ...]
    images: tuple[Image.Image, ...]
    seed: int
    arguments: dict[str, Any]
    layout: TokenLayout
    schedule: Schedule

    def pipeline_arguments(self) -> dict[str, Any]:
        """The keyword arguments with fresh generators: each batch item starts from the same noise.

        The generators live on the CPU, so the noise is the same on every device.
        """
        generators = [torch.Generator("cpu").manual_seed(self.seed) for _ in self.prompts]
        # a pipeline may write into a dictionary that it is given
        own = {name: dict(v) for name, v in self.arguments.items() if isinstance(v, dict)}
        return {
            **self.arguments,
            **own,
            "generator": generators[0] if len(generators) == 1 else generators,
        }


def as_prompts(prompt: Any) -> tuple[str, ...]:
    """One or several prompts.

    Raises:
        InputError: an empty list, or something that is not text.
    """
    prompts = (prompt,) if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Sequence) or not all(isinstance(p, str) for p in prompts):
        raise InputError(f"prompt must be a text or a list of texts, not {prompt!r}.")
    if not prompts:
        raise InputError("The list of prompts is empty; give at least one prompt.")
    return tuple(prompts)


def as_indices(name: str, selection: Any, count: int) -> list[int]:
    """A selection of indices, ascending and without repeats; None selects all.

    Raises:
        InputError: empty, or an index outside 0..count-1.
    """
    if selection is None:
        return list(range(count))
    values = list(selection) if isinstance(selection, Iterable) else [selection]
    indices = sorted({whole_number(name, value, 0) for value in values})
    if not indices:
        raise InputError(f"{name} selects nothing; leave it out to select all.")
    if indices[-1] >= count:
        raise InputError(f"{name} holds {indices[-1]}, but the run has 0 to {count - 1} only.")
    return indices


def _check_names(family: Family, pipeline: Any, overrides: Mapping[str, Any]) -> None:
    reserved = RESERVED | dict(family.reserved)
    known = inspect.signature(type(pipeline).__call__).parameters
    for name in overrides:
        if name in reserved:
            instead = f"; use {reserved[name]} of the probe" if reserved[name] else ""
            raise InputError(f"The pipeline argument {name!r} is set by the probe{instead}.")
        if name not in known:
            choices = ", ".join(sorted(set(known) - set(reserved)))
            raise InputError(
                f"{type(pipeline).__name__} takes no argument {name!r}. It takes {choices}."
            )


def make_request(
    family: Family,
    pipeline: Any,
    image: ImageSources | None,
    prompt: str | Sequence[str],
    steps: int,
    seed: int,
    overrides: Mapping[str, Any],
) -> Request:
    """Check what was asked for and predict the run.

    Args:
        overrides: further pipeline arguments; None means the pipeline's default.

    Raises:
        InputError: an argument that cannot be used; nothing has run.
    """
    prompts = as_prompts(prompt)
    steps = whole_number("steps", steps, 1)
    seed = whole_number("seed", seed, 0)
    if seed >= 2**63:
        raise InputError(f"seed must be below 2 ** 63, not {seed}.")
    overrides = {name: value for name, value in overrides.items() if value is not None}
    _check_names(family, pipeline, overrides)
    for name in ("height", "width", "max_area", "max_sequence_length"):
        if name in overrides:
            whole_number(name, overrides[name], 1)
    sigmas = overrides.get("sigmas")
    if sigmas is not None and len(sigmas) != steps:
        raise InputError(f"sigmas has {len(sigmas)} entries, but steps={steps}.")
    for name in set(family.image_arguments) & set(overrides):
        overrides[name] = load_images(overrides[name])
    arguments: dict[str, Any] = family.call_arguments(pipeline, overrides)
    images = tuple(
        family.prepare_reference(pipeline, each, overrides)
        for each in ([] if image is None else load_images(image))
    )
    if not images and family.needs_reference:
        raise InputError(
            f"{type(pipeline).__name__} makes no image without a reference; give one, and drop its "
            "tokens with WithoutReference()."
        )
    arguments |= family.reference_arguments(images, arguments)
    arguments |= {"prompt": _batch(prompts), "num_inference_steps": steps}
    for name in ("prompt_2", "negative_prompt", "negative_prompt_2"):
        if isinstance(arguments.get(name), str) and len(prompts) > 1:
            arguments[name] = [arguments[name]] * len(prompts)
    layout = family.predict_layout(pipeline, images[0] if images else None, arguments)
    schedule = family.predict_schedule(pipeline, layout, arguments)
    return Request(prompts, images, seed, arguments, layout, schedule)


def _batch(prompts: tuple[str, ...]) -> str | list[str]:
    return prompts[0] if len(prompts) == 1 else list(prompts)
