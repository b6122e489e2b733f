"""Attention watched from outside, by wrapping the backends of diffusers' dispatch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from recast_probe._utils.compat import attention_backends


@contextmanager
def watch_attention(
    transformer: torch.nn.Module,
    on_attention: Callable[[int, int, Mapping[str, Any]], torch.Tensor | None],
) -> Iterator[dict[str, Any]]:
    """The second attachment: wrap the attention backends of diffusers while inside.

    Args:
        transformer: only attention inside this module's forward, in this thread, is watched.
        on_attention: called with the transformer call (from 0), the number of the attention call in
            it (from 0) and the backend's keyword arguments. What it returns, if anything, is the
            block's attention output in place of the backend's.

    Yields:
        What is known of the present transformer call; "inputs" are the arguments given by name.
    """
    watched_thread = threading.get_ident()
    state: dict[str, Any] = {"call": -1, "attention": 0, "inside": False, "inputs": {}}

    def enter(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        if threading.get_ident() == watched_thread:
            state.update(call=state["call"] + 1, attention=0, inside=True, inputs=inputs)

    def leave(*_: Any) -> None:
        if threading.get_ident() == watched_thread:
            state["inside"] = False

    def wrapped(backend: Callable[..., Any]) -> Callable[..., Any]:
        def watched(**arguments: Any) -> Any:
            if state["inside"] and threading.get_ident() == watched_thread:
                given = on_attention(state["call"], state["attention"], arguments)
                state["attention"] += 1
                if given is not None:
                    return given
            return backend(**arguments)

        return watched

    backends = attention_backends()
    before = dict(backends)
    hooks = [
        transformer.register_forward_pre_hook(enter, with_kwargs=True),
        transformer.register_forward_hook(leave),
    ]
    try:
        backends.update({name: wrapped(backend) for name, backend in before.items()})
        yield state
    finally:
        backends.update(before)
        for hook in hooks:
            hook.remove()
