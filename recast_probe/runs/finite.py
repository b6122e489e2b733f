"""Numbers that are not finite: noticed where they first show, and told with their cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from recast_probe.errors import VerificationError

TEXT_INPUTS = ("encoder_hidden_states", "pooled_projections")


def finite(tensor: Tensor) -> bool:
    """Whether every number is finite."""
    return bool(torch.isfinite(tensor).all())


def not_finite_attention(
    found: Mapping[str, Tensor], block: int, where: str, inputs: Mapping[str, Any]
) -> VerificationError | None:
    """The error for a block whose attention was given NaN or infinity; None where it was not.

    Args:
        found: query, key and value, by name.
        block: the first block that was read and has them.
        where: step and branch, in words.
        inputs: what the transformer was given in this call.
    """
    names = [name for name, tensor in found.items() if not finite(tensor)]
    if not names:
        return None
    return VerificationError(
        f"NaN or inf in the {' and '.join(names)} of block {block}, {where}. {_cause(inputs)}"
    )


def check_output(
    output: Any, generation: Callable[[Tensor], Tensor], where: str, inputs: Mapping[str, Any]
) -> None:
    """Check the generation tokens of what the transformer gave.

    Args:
        generation: takes them from it.

    Raises:
        VerificationError: they hold NaN or infinity.
    """
    states = output if isinstance(output, Tensor) else output[0]
    if isinstance(states, Tensor) and not finite(generation(states)):
        raise VerificationError(
            f"NaN or inf in the transformer's output, {where}. {_cause(inputs)}"
        )


@contextmanager
def finite_images(pipeline: Any) -> Iterator[None]:
    """While inside, the autoencoder must decode finite numbers.

    Raises:
        VerificationError: it decoded NaN or infinity.
    """
    decoder = getattr(getattr(pipeline, "vae", None), "decoder", None)

    def decoded(_: Any, __: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not finite(output):
            raise VerificationError(
                "The autoencoder decoded NaN or inf, though the transformer's output was finite. "
                "If it runs in float16, use pipe.vae.to(torch.float32), or load the pipeline in "
                "bfloat16."
            )

    if not isinstance(decoder, torch.nn.Module):
        yield
        return
    hook = decoder.register_forward_hook(decoded)
    try:
        yield
    finally:
        hook.remove()


def all_finite(inputs: Mapping[str, Any]) -> bool:
    """Whether every number that the transformer was given is finite."""
    return not _wrong(inputs)


def origin(transformer: torch.nn.Module, inputs: Mapping[str, Any]) -> str:
    """Where in the transformer NaN or infinity arise, found by one more call of it.

    Args:
        inputs: the call's, all finite.

    Returns:
        A sentence that names the first block whose output is not finite, and a weight of it.
    """
    blocks = [
        (f"{name}.{index}", block)
        for name, stack in transformer.named_children()
        if isinstance(stack, torch.nn.ModuleList)
        for index, block in enumerate(stack)
    ]
    found: list[int] = []

    def note(index: int, output: Any) -> None:
        states = output if isinstance(output, tuple) else (output,)
        if not all(finite(each) for each in states if isinstance(each, Tensor)):
            found.append(index)

    hooks = [
        block.register_forward_hook(lambda _, __, output, index=index: note(index, output))
        for index, (_, block) in enumerate(blocks)
    ]
    try:
        with torch.no_grad():
            transformer(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        weight = _damaged_weight(transformer)
        return f"The transformer's weight {weight} holds them." if weight else ""
    path, block = blocks[found[0]]
    weight = _damaged_weight(block)
    which = f"weight {weight} holds them" if weight else "weights are finite"
    return (
        f"The first block whose output is not finite is block {found[0]} (transformer.{path}), "
        f"and its {which}."
    )


def _damaged_weight(module: torch.nn.Module) -> str | None:
    for name, weight in module.named_parameters():
        if weight.is_floating_point() and not weight.is_meta and not finite(weight):
            return name
    return None


def _wrong(inputs: Mapping[str, Any]) -> list[str]:
    return [name for name, each in inputs.items() if isinstance(each, Tensor) and not finite(each)]


def _cause(inputs: Mapping[str, Any]) -> str:
    """What of the transformer's inputs is not finite already, and what to do."""
    wrong = _wrong(inputs)
    text = [name for name in wrong if name in TEXT_INPUTS]
    if text:
        return (
            f"The text's states ({', '.join(text)}) do so before the transformer: is a text "
            "encoder in float16, or are its weights damaged? Load it in bfloat16 or float32."
        )
    if wrong:
        return (
            f"The transformer was given them ({', '.join(wrong)}): look at the latents, the "
            "encoded reference and the guidance, and whether the autoencoder runs in float16."
        )
    return (
        "The transformer's inputs are finite, so they arise in it: a weight is NaN, or its "
        "numbers overflow in float16. Load it in bfloat16 or float32, or load its weights anew."
    )
