"""Blocks that take most of a step from a cache of the last full one.

In a full step the blocks run as they are, and hooks keep what attention and MLP gave. In a cached
step the generation tokens get the kept attention output, and only the fresh ones go through the
MLP; text and reference tokens pass unchanged, since nothing reads them before the next full step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from recast_probe._utils.compat import hook_registry
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.pipelines.feature_cache import FeatureCache

_ABSENT = object()
_MARK = "_recast_probe_cached"


class CachedBlock(ABC):
    """How one kind of block runs from a cache.

    Attributes:
        modulation: name of the block's third argument, which modulates it.
        block: the module.
        number: its global index.
        cache: whom it asks.
        original: the block's own forward.
    """

    modulation: str

    def __init__(self, block: Any, number: int, cache: FeatureCache) -> None:
        self.block, self.number, self.cache = block, number, cache
        self.original: Callable[..., Any] = block.forward

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Any, *others: Any, **named: Any
    ) -> Any:
        """In place of the block's own forward: that one in full steps, the cache in others."""
        if not self.cache.cached:
            return self.original(hidden_states, encoder_hidden_states, *others, **named)
        span, joined = self.cache.layout.span("generation"), encoder_hidden_states is None
        start = span.start if joined else 0  # else the text stands apart
        stop = start + self.cache.layout.generation.size
        modulation = others[0] if others else named[self.modulation]
        tokens = self.cached(hidden_states[:, start:stop], modulation)
        parts = [hidden_states[:, :start], tokens, hidden_states[:, stop:]]
        states = torch.cat(parts, dim=1)
        return states if joined else (encoder_hidden_states, states)

    @abstractmethod
    def cached(self, tokens: Tensor, modulation: Tensor) -> Tensor:
        """The generation tokens (batch, token, width) after a cached step of the block."""

    @abstractmethod
    def attention_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        """Where attention's output comes up, and what of (inputs, output) it is: (batch, generation
        token, width)."""

    @abstractmethod
    def output_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        """Where the output of the MLP or of the last projection comes up, likewise."""

    def projected(self, place: int) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        """Where key (1) or value (2) of the image's tokens, or of all, is projected, and what of it
        they are: (batch, token, width)."""
        attention = self.block.attn
        if getattr(attention, "fused_projections", False):
            return attention.to_qkv, lambda _, output: output.chunk(3, dim=-1)[place]
        separate = (attention.to_q, attention.to_k, attention.to_v)
        return separate[place], lambda _, output: output

    def generation(self, sequence: Tensor) -> Tensor:
        """The generation tokens of what the block computes, here of the whole sequence."""
        return sequence[:, self.cache.layout.span("generation")]

    def hooks(self) -> list[Any]:
        """Hooks that keep what full steps compute."""
        cache, number = self.cache, self.number
        kept = [
            (self.attention_module(), lambda found: cache.store_attention(number, found)),
            (self.output_module(), lambda found: cache.store_output(number, found)),
        ]
        if cache.norms:
            projected = self.projected(1 if cache.norms == "key_norm" else 2)
            kept.append((projected, self._keep_norms))
        return [
            module.register_forward_hook(self._hook(part, keep)) for (module, part), keep in kept
        ]

    def _hook(self, part: Callable[[Any, Any], Tensor], keep: Callable[[Tensor], None]) -> Any:
        def hook(_: Any, inputs: Any, output: Any) -> None:
            if self.cache.storing:
                keep(part(inputs, output))

        return hook

    def _keep_norms(self, vectors: Tensor) -> None:
        by_head = vectors.unflatten(-1, (-1, self.block.attn.head_dim))
        norms = by_head.float().norm(dim=-1).mean(dim=-1)
        self.cache.store_norms(self.number, self.in_order(norms))

    def in_order(self, sequence: Tensor) -> Tensor:
        """Something of every token whose key is projected, (batch, token, ...), canonically: text
        where the block has one stream, generation, reference."""
        return sequence


class CachedDoubleBlock(CachedBlock):
    """A double-stream block, whose image tokens are computed apart from the text."""

    def attention_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        return self.block.attn, lambda _, outputs: self.generation(outputs[0])

    def output_module(self) -> tuple[torch.nn.Module, Callable[[Any, Any], Tensor]]:
        return self.block.ff, lambda _, output: self.generation(output)

    def generation(self, sequence: Tensor) -> Tensor:
        return sequence[:, : self.cache.layout.generation.size]


def within_float16(tokens: Tensor) -> Tensor:
    """As diffusers' single-stream blocks keep their output in the range of float16."""
    return tokens.clip(-65504, 65504) if tokens.dtype == torch.float16 else tokens


@contextmanager
def cached_blocks(
    blocks: Sequence[tuple[type[CachedBlock], torch.nn.Module]], cache: FeatureCache
) -> Iterator[None]:
    """Let the blocks use a cache while inside; afterwards they are as they were.

    Args:
        blocks: how each of them runs from a cache, in the order in which they run.
        cache: whom they ask.

    Raises:
        InputError: the blocks use another cache already.
        UnsupportedPipelineError: diffusers has hooks on the blocks.
    """
    for _, block in blocks:
        if _MARK in vars(block):
            raise InputError("Two TokenCache interventions cannot share a run; use one of them.")
        if hook_registry(block) is not None:
            raise UnsupportedPipelineError(
                "The blocks carry hooks of diffusers (a feature cache or group offloading), which "
                "a token cache would bypass. Call pipe.transformer.disable_cache(), or load the "
                "pipeline without group offloading."
            )
    with ExitStack() as stack:
        for number, (kind, block) in enumerate(blocks):
            cached = kind(block, number, cache)
            for handle in cached.hooks():
                stack.callback(handle.remove)
            stack.enter_context(_replaced(block, cached.forward))
        yield


@contextmanager
def _replaced(block: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    before = vars(block).get("forward", _ABSENT)
    vars(block)[_MARK] = True
    vars(block)["forward"] = forward
    try:
        yield
    finally:
        del vars(block)[_MARK]
        if before is _ABSENT:
            vars(block).pop("forward", None)
        else:
            vars(block)["forward"] = before
