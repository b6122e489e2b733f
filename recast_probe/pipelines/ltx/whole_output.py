"""Outputs for the tokens that were dropped, where a pipeline reads those of all tokens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn import functional


@contextmanager
def whole_output(transformer: nn.Module) -> Iterator[None]:
    """While inside, the transformer gives zeros at the front for as many tokens as were dropped
    from its ``hidden_states`` after it was called."""
    given = [0]

    # the first of all: what drops tokens comes after it
    def before(_: nn.Module, __: Any, inputs: dict[str, Any]) -> None:
        given[0] = int(inputs["hidden_states"].shape[1])

    def after(_: nn.Module, __: Any, output: Any) -> Any:
        dropped = given[0] - int(output[0].shape[1])
        if not dropped:
            return None
        whole = functional.pad(output[0], (0, 0, dropped, 0))
        return (whole,) if isinstance(output, tuple) else type(output)(whole)

    hooks = [
        transformer.register_forward_pre_hook(before, with_kwargs=True, prepend=True),
        transformer.register_forward_hook(after),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
