"""FLUX blocks that take most of a step from a cache of the last full one.

In a full step the blocks run as they are, and hooks keep what attention and MLP gave. In a cached
step the generation tokens get the kept attention output, and only the fresh ones go through the
MLP; text and reference tokens pass unchanged, since nothing reads them before the next full step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.families.feature_cache import FeatureCache

_ABSENT = object()
_MARK = "_recast_probe_cached"


@contextmanager
def cached_blocks(
    blocks: Sequence[tuple[str, torch.nn.Module]], cache: FeatureCache
) -> Iterator[None]:
    """Let the blocks use a cache while inside; afterwards they are as they were.

    Args:
        blocks: kind ("double" or "single") and module, in the order in which they run.
        cache: whom they ask.

    Raises:
        InputError: the blocks use another cache already.
        UnsupportedPipelineError: diffusers has hooks on the blocks.
    """
    for _, block in blocks:
        if _MARK in vars(block):
            raise InputError("Two TokenCache interventions cannot share a run; use one of them.")
        if getattr(block, "_diffusers_hook", None) is not None:
            raise UnsupportedPipelineError(
                "The blocks carry hooks of diffusers (a feature cache or group offloading), which "
                "a token cache would bypass. Call pipe.transformer.disable_cache(), or load the "
                "pipeline without group offloading."
            )
    with ExitStack() as stack:
        for number, (kind, block) in enumerate(blocks):
            store = _keep_double if kind == "double" else _keep_single
            for handle in store(number, block, cache):
                stack.callback(handle.remove)
            cached = _double if kind == "double" else _single
            stack.enter_context(_replaced(block, _either(number, block, cache, cached)))
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


def _either(
    number: int, block: Any, cache: FeatureCache, cached: Callable[..., Tensor]
) -> Callable[..., tuple[Tensor, Tensor]]:
    """The block's own forward in full steps, `cached` for the generation tokens in the others."""
    original = block.forward

    def forward(
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: Any = None,
        joint_attention_kwargs: Any = None,
    ) -> tuple[Tensor, Tensor]:
        if not cache.cached:
            return original(
                hidden_states=hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                temb=temb,
                image_rotary_emb=image_rotary_emb,
                joint_attention_kwargs=joint_attention_kwargs,
            )
        count = cache.layout.generation.size
        tokens = cached(number, block, cache, hidden_states[:, :count], temb)
        return encoder_hidden_states, torch.cat([tokens, hidden_states[:, count:]], dim=1)

    return forward


def _double(number: int, block: Any, cache: FeatureCache, tokens: Tensor, temb: Tensor) -> Tensor:
    kept = cache.features(number)
    # the modulation is that of this step, and does not depend on the tokens
    _, attention_gate, shift, scale, gate = block.norm1(tokens[:, :1], emb=temb)
    tokens = tokens + attention_gate[:, None] * kept.attention
    for item, fresh in enumerate(cache.fresh(number)):
        if len(fresh):
            picked = block.norm2(tokens[item : item + 1, fresh])
            picked = picked * (1 + scale[item, None, None]) + shift[item, None, None]
            kept.output[item, fresh] = block.ff(picked)[0]
    return tokens + gate[:, None] * kept.output


def _single(number: int, block: Any, cache: FeatureCache, tokens: Tensor, temb: Tensor) -> Tensor:
    kept = cache.features(number)
    _, gate = block.norm(tokens[:, :1], emb=temb)
    for item, fresh in enumerate(cache.fresh(number)):
        if len(fresh):
            one = slice(item, item + 1)
            picked, _ = block.norm(tokens[one, fresh], emb=temb[one])
            hidden = block.act_mlp(block.proj_mlp(picked))
            joined = torch.cat([kept.attention[one, fresh], hidden], dim=2)
            kept.output[item, fresh] = block.proj_out(joined)[0]
    tokens = tokens + gate[:, None] * kept.output
    return tokens.clip(-65504, 65504) if tokens.dtype == torch.float16 else tokens


def _keep_double(number: int, block: Any, cache: FeatureCache) -> list[Any]:
    def keep_attention(_: Any, __: Any, outputs: tuple[Tensor, ...]) -> None:
        if cache.storing:
            cache.store_attention(number, outputs[0][:, : cache.layout.generation.size])

    def keep_output(_: Any, __: Any, output: Tensor) -> None:
        if cache.storing:
            cache.store_output(number, output[:, : cache.layout.generation.size])

    return [
        block.attn.register_forward_hook(keep_attention),
        block.ff.register_forward_hook(keep_output),
        *_keep_norms(number, block, cache),
    ]


def _keep_single(number: int, block: Any, cache: FeatureCache) -> list[Any]:
    def keep_attention(_: Any, __: Any, output: Tensor) -> None:
        if cache.storing:
            cache.store_attention(number, output[:, cache.layout.span("generation")])

    def keep_output(_: Any, __: Any, output: Tensor) -> None:
        if cache.storing:
            cache.store_output(number, output[:, cache.layout.span("generation")])

    return [
        block.attn.register_forward_hook(keep_attention),
        block.proj_out.register_forward_hook(keep_output),
        *_keep_norms(number, block, cache),
    ]


def _keep_norms(number: int, block: Any, cache: FeatureCache) -> list[Any]:
    """Hooks for the lengths of keys or values as the projections give them; none where unused."""
    if not cache.norms:
        return []
    attention = block.attn
    fused = getattr(attention, "fused_projections", False)
    place = 1 if cache.norms == "key_norm" else 2

    def keep_norms(_: Any, __: Any, output: Tensor) -> None:
        if cache.storing:
            vectors = output.chunk(3, dim=-1)[place] if fused else output
            by_head = vectors.unflatten(-1, (-1, attention.head_dim))
            cache.store_norms(number, by_head.float().norm(dim=-1).mean(dim=-1))

    own = attention.to_qkv if fused else (attention.to_q, attention.to_k, attention.to_v)[place]
    return [own.register_forward_hook(keep_norms)]
