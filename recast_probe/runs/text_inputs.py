"""Prompts or their embeddings, checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from recast_probe.errors import InputError
from recast_probe.pipelines.base import Family


def as_prompts(prompt: Any) -> tuple[str, ...]:
    """One or several prompts.

    Raises:
        InputError: an empty list, or something that is not text or has no UTF-8.
    """
    prompts = (prompt,) if isinstance(prompt, str) else prompt
    if not isinstance(prompts, Sequence) or not all(isinstance(p, str) for p in prompts):
        raise InputError(f"prompt must be a text or a list of texts, not {prompt!r}.")
    if not prompts:
        raise InputError("The list of prompts is empty; give at least one prompt.")
    for each in prompts:
        _check_encodable("prompt", each)
    return tuple(prompts)


def _check_encodable(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds {text[error.start : error.end]!r} at {error.start}, half of a character "
            "(a lone surrogate), which no file and no tokenizer takes; remove it."
        ) from error


def given_prompts(
    family: Family, prompt: Any, overrides: Mapping[str, Any]
) -> tuple[str | None, ...]:
    """The prompts of a call, or as many times None as its embeddings are of prompts.

    Raises:
        InputError: neither or both are given, or what is given is neither text nor embeddings.
    """
    name = family.texts["conditional"].embeddings
    embeddings = overrides.get(name)
    if embeddings is None:
        if prompt is None:
            instead = f", or what the text encoders make of one as {name}" if name else ""
            raise InputError(f"Give a prompt{instead}.")
        return as_prompts(prompt)
    if prompt is not None:
        raise InputError(
            f"prompt={prompt!r} and {name} are both given, and the pipeline reads one of them; "
            f"leave {name} out, or say prompt=None."
        )
    return (None,) * len(_checked(name, embeddings, ("prompt", "text token", "width")))


def check_one_prompt(what: str, prompt: Any, overrides: Mapping[str, Any]) -> None:
    """Check that a call is of one prompt, or of the embeddings of one.

    Args:
        what: takes one prompt: "The text lens takes".

    Raises:
        InputError: it is of several.
    """
    embeddings = overrides.get("prompt_embeds")
    several = prompt is None and isinstance(embeddings, torch.Tensor) and len(embeddings) > 1
    if several or not isinstance(prompt, str | None):
        raise InputError(f"{what} one prompt; call it for each of them.")


def check_texts(
    family: Family,
    prompts: Sequence[str | None],
    overrides: Mapping[str, Any],
) -> None:
    """Check every text and embedding among the pipeline's arguments.

    Raises:
        InputError: shapes, dtypes or numbers that do not fit, or halves that are missing; the
            message gives the values.
    """
    for text in family.texts.values():
        for name in text.prompts:
            if name != "prompt" and name in overrides:
                _check_text(name, overrides[name], len(prompts))
        embeddings = overrides.get(text.embeddings)
        halves = [name for name in (text.pooled, text.mask) if name in overrides]
        if embeddings is None:
            if halves:
                raise InputError(f"{halves[0]} is given without {text.embeddings}; give both.")
            continue
        twice = [name for name in text.prompts if name in overrides]
        if twice:
            raise InputError(
                f"{twice[0]} and {text.embeddings} are both given, and the pipeline reads one of "
                "them; leave one out."
            )
        _checked(text.embeddings, embeddings, ("prompt", "text token", "width"))
        tokens = embeddings.shape[1]
        wanted = (len(prompts), tokens, family.text_width)
        _check_fits(text.embeddings, embeddings, wanted, family.pipe)
        if text.pooled is not None:
            pooled = overrides.get(text.pooled)
            if pooled is None:
                raise InputError(
                    f"{text.embeddings} is given without {text.pooled}; give both, from the same "
                    "pipe.encode_prompt(...)."
                )
            _checked(text.pooled, pooled, ("prompt", "width"))
            width = int(family.pipe.transformer.config.pooled_projection_dim)
            _check_fits(text.pooled, pooled, (len(prompts), width), family.pipe)
        if text.mask is not None and text.mask in overrides:
            _check_mask(family, text.mask, overrides[text.mask], text.embeddings, embeddings)


def check_encoders(family: Family, arguments: Mapping[str, Any]) -> None:
    """Check that the pipeline can read the prompts that it is given.

    Raises:
        InputError: a tokenizer or text encoder is missing.
    """
    missing = [part for part in family.text_parts if getattr(family.pipe, part, None) is None]
    if missing and (branches := family.encoded_branches(arguments)):
        which = "prompt" if branches[0] == "conditional" else "negative prompt"
        texts = [family.texts[branch] for branch in branches]
        names = [name for text in texts for name in (text.embeddings, text.pooled) if name]
        raise InputError(
            f"This {type(family.pipe).__name__} has no {' and no '.join(missing)}, so it reads no "
            f"{which}; load {'it' if len(missing) == 1 else 'them'}, or give "
            f"{' and '.join(names)} instead."
        )


def _check_text(name: str, given: Any, prompts: int) -> None:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise InputError(f"{name} must be a text or a list of texts, not {given!r}.")
    if not isinstance(given, str) and len(texts) != prompts:
        raise InputError(f"{name} has {len(texts)} texts for {prompts} prompts; give as many.")
    for each in texts:
        _check_encodable(name, each)


def _checked(name: str, given: Any, axes: Sequence[str]) -> torch.Tensor:
    """A finite floating-point tensor with these axes, none of them empty."""
    if not isinstance(given, torch.Tensor):
        raise InputError(f"{name} must be a torch.Tensor, not {type(given).__name__}.")
    if given.ndim != len(axes) or not given.numel():
        raise InputError(
            f"{name} must have the shape ({', '.join(axes)}), not {tuple(given.shape)}."
        )
    if not given.is_floating_point():
        raise InputError(f"{name} must hold floating-point numbers, not {given.dtype}.")
    if not bool(given.isfinite().all()):
        raise InputError(f"{name} holds numbers that are not finite.")
    return given


def _check_fits(name: str, given: torch.Tensor, shape: tuple[int, ...], pipeline: Any) -> None:
    if tuple(given.shape) != shape:
        raise InputError(
            f"{name} has the shape {tuple(given.shape)}, and this model and {shape[0]} "
            f"{'prompt' if shape[0] == 1 else 'prompts'} need {shape}."
        )
    dtype = pipeline.transformer.dtype
    autocast = torch.is_autocast_enabled(given.device.type)
    if dtype.is_floating_point and given.dtype != dtype and not autocast:
        raise InputError(
            f"{name} is of {given.dtype}, and the transformer of {dtype}; give {name}.to({dtype})."
        )


def _check_mask(family: Family, name: str, mask: Any, of: str, embeddings: torch.Tensor) -> None:
    shape = tuple(embeddings.shape[:2])
    if not isinstance(mask, torch.Tensor) or tuple(mask.shape) != shape:
        found = tuple(mask.shape) if isinstance(mask, torch.Tensor) else type(mask).__name__
        raise InputError(f"{name} must be a torch.Tensor of shape {shape}, not {found}.")
    if family.text_in_sequence and not bool((mask == 1).all()):
        raise InputError(
            f"{name} leaves out {int((mask != 1).sum())} of {mask.numel()} text tokens, and "
            f"attention under a mask is not read; cut them off: {of}[:, mask[0].bool()]."
        )


def check_latents(given: Any, shape: tuple[int, ...]) -> None:
    """Check initial noise that the user gives.

    Raises:
        InputError: not a finite floating-point tensor of the shape that the pipeline takes.
    """
    _checked("latents", given, tuple(map(str, shape)))
    if tuple(given.shape) != shape:
        raise InputError(
            f"latents has the shape {tuple(given.shape)}, and this run takes {shape}: one noise "
            "for each prompt, as the pipeline itself holds it at this size of output."
        )
