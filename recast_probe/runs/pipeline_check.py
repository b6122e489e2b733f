"""What an observed or accelerated run relies on in the pipeline, checked before every image.

A pipeline belongs to its user, who may switch on a cache, set other attention processors or put in
another transformer at any time. Whatever would make a run wrong is refused here, with its cause and
the way out. Nothing is computed and no tensor is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from recast_probe._utils.compat import (
    before_compiling,
    diffusers_hooks,
    feature_cache,
    own_forwards,
)
from recast_probe.errors import UnsupportedPipelineError
from recast_probe.pipelines.base import AttentionCall, Family
from recast_probe.pipelines.code_origin import foreign_layer, foreign_part, is_of, whose
from recast_probe.pipelines.compiled import refuse_wholly_compiled
from recast_probe.pipelines.hooked_processor import DISPATCH, find_dispatch

# diffusers' hooks that move or cast weights and leave what is computed as it is
HARMLESS_HOOKS = ("diffusers.hooks.group_offloading", "diffusers.hooks.layerwise_casting")


def check_pipeline(family: Family, attachment: str) -> None:
    """Check that a run may begin.

    Args:
        family: the pipeline's.
        pipeline: as it is now.
        attachment: "nnsight" or "hooks", by which the transformer will be reached.

    Raises:
        UnsupportedPipelineError: it may not; the message says why, and what to do.
    """
    if attachment == "nnsight":
        family.check_traceable()
    elif getattr(family.pipe, "transformer", None) is not None:
        refuse_wholly_compiled(family.pipe.transformer)
    family.check()
    check_computation(family)
    if attachment == "hooks":
        calls = family.attention_calls()
        processors = [family.processor_of(call) for call in calls]
        check_replaceable(calls, processors, written=family.own)


def check_computation(family: Family) -> None:
    """Check that the transformer computes what diffusers' own does, in every step.

    Raises:
        UnsupportedPipelineError: a cache, a hook or a replaced function stands in between.
    """
    transformer = family.transformer
    _refuse_caches(transformer)
    _refuse_replaced_functions(family)


def check_replaceable(
    calls: Sequence[AttentionCall], processors: Sequence[Any], *, written: bool = False
) -> None:
    """Check that these processors may be hooked.

    Args:
        written: they may be of a user's own classes.

    Raises:
        UnsupportedPipelineError: one of them is not diffusers' own.
    """
    foreign = {
        call.module: part
        for call, processor in zip(calls, processors, strict=True)
        if (part := foreign_part(processor, written=written)) is not None
    }
    if foreign:
        module, part = next(iter(foreign.items()))
        raise UnsupportedPipelineError(
            f"{len(foreign)} of {len(calls)} attention processors do not compute what diffusers' "
            f"own do; the first is that of {module}, which runs {whose(part)}. Take the change "
            "back, or set a processor with pipe.transformer.set_attn_processor()."
        )
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    if not is_of(dispatch_attention_fn, "diffusers"):  # a run calls it as well
        raise UnsupportedPipelineError(
            f"A function of diffusers was replaced by {whose(dispatch_attention_fn)}; put it back."
        )


def unreadable_blocks(family: Family) -> dict[int, str]:
    """Blocks whose attention cannot be followed where it stands, each with the reason."""
    found = {}
    for block, call in enumerate(family.attention_calls()):
        processor = family.processor_of(call)
        part = foreign_part(processor, written=family.own)
        if part is not None and (call.projections or not _dispatches_once(processor)):
            found[block] = (
                f"Attention of block {block} ({call.module}) cannot be read: its processor runs "
                f"{whose(part)}, which is not diffusers' own, and does not leave its attention to "
                f"one call of diffusers' {DISPATCH}. Take the change back, or set a processor with "
                "pipe.transformer.set_attn_processor()."
            )
    return found


def _dispatches_once(processor: Any) -> bool:
    try:
        find_dispatch(type(processor).__call__)
    except UnsupportedPipelineError:
        return False
    return True


def _refuse_caches(transformer: torch.nn.Module) -> None:
    """Refuse whatever diffusers has hooked into the transformer that skips or changes work."""
    config = feature_cache(transformer)
    if config is not None:
        raise UnsupportedPipelineError(
            f"A feature cache is on ({type(config).__name__}), which skips what is to be read or "
            "changed. Call pipe.transformer.disable_cache() first."
        )
    for path, module in transformer.named_modules():
        for name, hook in diffusers_hooks(module).items():
            if type(hook).__module__ not in HARMLESS_HOOKS:
                raise UnsupportedPipelineError(
                    f"{path or 'The transformer'} carries diffusers' hook {name!r} "
                    f"({type(hook).__name__}), which skips or changes what is to be read or "
                    "changed. Take it off first: from diffusers.hooks import HookRegistry; "
                    "HookRegistry.check_if_exists_or_initialize(pipe.transformer)."
                    f"remove_hook({name!r}, recurse=True)."
                )


def _refuse_replaced_functions(family: Family) -> None:
    """Refuse a call of the transformer, a block or its attention that is not diffusers' own, be it
    replaced on the object or on its class."""
    transformer = family.transformer
    lists = [each for each in transformer.children() if isinstance(each, torch.nn.ModuleList)]
    blocks = [before_compiling(block) or block for each in lists for block in each]
    attention = [transformer.get_submodule(call.module) for call in family.attention_calls()]
    named = {id(module): path for path, module in transformer.named_modules()}
    for module in (transformer, *blocks, *attention):
        kind, path = type(module), named.get(id(module), "")
        whole = f"transformer.{path}" if path else "transformer"
        if kind.__call__ is not torch.nn.Module.__call__ and not is_of(kind.__call__, "torch"):
            _refuse(f"{kind.__name__}.__call__ ({whole})", kind.__call__)
        written = kind if family.own else None
        _refuse(f"{kind.__name__}.forward ({whole})", foreign_layer(kind.forward, written))
        for own in own_forwards(module):
            _refuse(f"{whole}.forward", foreign_layer(own, written))


def _refuse(place: str, foreign: Any) -> None:
    if foreign is not None:
        raise UnsupportedPipelineError(
            f"{place} was replaced by {whose(foreign)}, as caches and other tools do, so it is not "
            "known what runs. Switch that tool off, or load the pipeline anew."
        )
