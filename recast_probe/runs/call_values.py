"""Numbers, functions and pictures of a request, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe._utils.checks import check_finite, check_int
from recast_probe._utils.compat import callback_tensors
from recast_probe.errors import InputError
from recast_probe.images.loading import ImageSources, load_images
from recast_probe.pipelines.base import Family

WHOLE_NUMBERS = (
    "height",
    "width",
    "num_frames",
    "max_area",
    "max_sequence_length",
    "output_resolution",
)
SCALES = ("guidance_scale", "true_cfg_scale")
MOST_STEPS = 1000
# a path takes two slashes for one; one letter before the colon is a drive
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def check_values(family: Family, steps: int, overrides: Mapping[str, Any]) -> None:
    """Check the values among the pipeline's arguments that it would fail at, or misread.

    Raises:
        InputError: one that cannot be used.
    """
    for name in set(WHOLE_NUMBERS) & set(overrides):
        check_int(name, overrides[name], 1)
    for name in set(SCALES) & set(overrides):
        check_finite(name, overrides[name])
    longest = family.longest_sequence()
    if longest is not None and overrides.get("max_sequence_length", 0) > longest:
        raise InputError(
            f"max_sequence_length={overrides['max_sequence_length']} is beyond the {longest} text "
            f"tokens that {type(family.pipe).__name__} takes; choose at most {longest}."
        )
    config = getattr(family.pipe.scheduler, "config", None)
    if not isinstance(config, Mapping):
        raise InputError(
            f"pipe.scheduler is of type {type(family.pipe.scheduler).__name__}, and has no config "
            "as diffusers' schedulers have; set one of them, such as "
            "FlowMatchEulerDiscreteScheduler."
        )
    most = max(MOST_STEPS, int(config.get("num_train_timesteps") or 0))
    if steps > most:
        raise InputError(
            f"steps={steps} is more than the {most} timesteps that the scheduler tells apart; "
            f"choose at most {most}."
        )
    sigmas = overrides.get("sigmas")
    if sigmas is not None:
        try:
            count = len(sigmas)
        except TypeError:
            raise InputError(f"sigmas must be a list of numbers, not {sigmas!r}.") from None
        if count != steps:
            raise InputError(f"sigmas has {count} entries, but steps={steps}.")
    for name in ("joint_attention_kwargs", "attention_kwargs"):
        if not isinstance(overrides.get(name, {}), Mapping):
            raise InputError(f"{name} must be a dictionary, not {overrides[name]!r}.")
    if not callable(overrides.get("callback_on_step_end", len)):
        found = overrides["callback_on_step_end"]
        raise InputError(f"callback_on_step_end must be a function, not {found!r}.")
    wanted = overrides.get("callback_on_step_end_tensor_inputs", [])
    known = callback_tensors(family.pipe)
    single = [wanted] if isinstance(wanted, str) else []
    unknown = single or [each for each in wanted if known is not None and each not in known]
    if unknown:
        names = "the pipeline's tensors" if known is None else ", ".join(known)
        raise InputError(
            f"callback_on_step_end_tensor_inputs holds {unknown[0]!r}; it is a list of some of "
            f"{names}."
        )


def as_references(source: ImageSources, *, alpha: bool = False) -> list[Image.Image]:
    """Reference images, each as ``load_image`` reads it.

    Args:
        alpha: leave transparency as it is.

    Raises:
        InputError: one that cannot be read, has no pixels, or is an array or an address.
    """
    several = isinstance(source, Sequence) and not isinstance(source, str)
    for each in source if several else [source]:  # type: ignore[union-attr]
        if isinstance(each, np.ndarray | torch.Tensor):
            raise InputError(
                f"The reference image is an array of shape {tuple(each.shape)}, and nothing says "
                "what its numbers mean; make a picture of it with PIL.Image.fromarray(array), from "
                "uint8 (height, width, 3)."
            )
        if isinstance(each, str | Path) and ADDRESS.match(str(each)):
            raise InputError(
                f"The reference image is the address {str(each)!r}, and nothing is fetched from "
                "the net; download it first, and give the path of the file."
            )
    try:
        images = load_images(source, alpha=alpha)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"The reference image {str(source)[:80]!r} cannot be opened: {error}."
        ) from error
    for image in images:
        if not image.width or not image.height:
            raise InputError(
                f"The reference image is {image.width} x {image.height} pixels, smaller than one "
                "token; give a larger one."
            )
    return images
