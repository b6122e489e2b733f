"""What an observed or accelerated run relies on in the pipeline, asked anew before every image.

A pipeline belongs to its user, who may switch on a cache, set other attention processors or put in
another transformer at any time. Whatever would make a run wrong is refused here, with its cause and
the way out. Nothing is computed and no tensor is read.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from recast_probe.errors import UnsupportedPipelineError
from recast_probe.pipelines.base import AttentionCall, Family
from recast_probe.pipelines.code_origin import code_of, foreign_layer, is_of, runs, whose
from recast_probe.pipelines.compiled import refuse_wholly_compiled

# diffusers' hooks that move or cast weights and leave what is computed as it is
HARMLESS_HOOKS = ("diffusers.hooks.group_offloading", "diffusers.hooks.layerwise_casting")
DISPATCH = "dispatch_attention_fn"


def check_pipeline(family: Family, attachment: str) -> None:
    """Ask whether a run may begin.

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
        check_replaceable(family, calls, processors)


def check_computation(family: Family) -> None:
    """Ask whether the transformer computes what diffusers' own does, in every step.

    Raises:
        UnsupportedPipelineError: a cache, a hook or a replaced function stands in between.
    """
    transformer = family.transformer
    _refuse_caches(transformer)
    _refuse_replaced_functions(family)


def check_replaceable(
    family: Family, calls: Sequence[AttentionCall], processors: Sequence[Any]
) -> None:
    """Ask whether a copy of diffusers' own processors may stand in for these.

    Raises:
        UnsupportedPipelineError: one of them computes something else.
    """
    others = [
        (call, processor)
        for call, processor in zip(calls, processors, strict=True)
        if not runs(processor, family.processors[call.kind])
    ]
    if others:
        call, processor = others[0]
        raise UnsupportedPipelineError(
            f"{len(others)} of {len(calls)} attention processors do not compute what diffusers' "
            f"own {family.processors[call.kind]} does; the first is that of {call.module}, which "
            f"runs {whose(type(processor).__call__)}. Hooks and accelerate would put a copy of "
            "diffusers' own in its place: take the change back, or set a processor with "
            "pipe.transformer.set_attn_processor()."
        )
    from diffusers.models import attention_dispatch, embeddings

    for function in (attention_dispatch.dispatch_attention_fn, embeddings.apply_rotary_emb):
        if not is_of(function, "diffusers"):
            raise UnsupportedPipelineError(
                f"A function of diffusers was replaced by {whose(function)}; put it back."
            )


def unreadable_blocks(family: Family) -> dict[int, str]:
    """Blocks whose attention cannot be followed where it stands, each with the reason."""
    found = {}
    for block, call in enumerate(family.attention_calls()):
        processor, name = family.processor_of(call), family.processors[call.kind]
        if not runs(processor, name) and (call.projections or not _dispatches_once(processor)):
            found[block] = (
                f"Attention of block {block} ({call.module}) cannot be read: its processor runs "
                f"{whose(type(processor).__call__)} and not diffusers' own {name}, and does not "
                f"leave its attention to one call of diffusers' {DISPATCH}. Take the change back, "
                "or set a processor with pipe.transformer.set_attn_processor()."
            )
    return found


def _dispatches_once(processor: Any) -> bool:
    """Whether a processor's source names diffusers' dispatch exactly once, and not in a loop."""
    call = type(processor).__call__
    try:
        # of the code itself: what it says it wraps is another function
        tree = ast.parse(textwrap.dedent(inspect.getsource(code_of(call))))  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError):
        return False
    loops = (ast.For, ast.While, ast.comprehension, ast.FunctionDef, ast.Lambda)
    body = tree.body[0]
    inner = [part for part in ast.walk(body) if isinstance(part, loops) and part is not body]
    named = list(_dispatched(body))
    looped = {id(each) for part in inner for each in _dispatched(part)}
    own = getattr(call, "__globals__", {}).get(DISPATCH)
    return len(named) == 1 and id(named[0]) not in looped and is_of(own, "diffusers")


def _dispatched(tree: ast.AST) -> Iterator[ast.Call]:
    for part in ast.walk(tree):
        if isinstance(part, ast.Call) and getattr(part.func, "id", None) == DISPATCH:
            yield part


def _refuse_caches(transformer: torch.nn.Module) -> None:
    """Refuse whatever diffusers has hooked into the transformer that skips or changes work."""
    config = getattr(transformer, "_cache_config", None)
    if config is not None:
        raise UnsupportedPipelineError(
            f"A feature cache is on ({type(config).__name__}), which skips what is to be read or "
            "changed. Call pipe.transformer.disable_cache() first."
        )
    for path, module in transformer.named_modules():
        registry = getattr(module, "_diffusers_hook", None)
        for name, hook in ({} if registry is None else registry.hooks).items():
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
    blocks = [block._modules.get("_orig_mod") or block for each in lists for block in each]
    attention = [transformer.get_submodule(call.module) for call in family.attention_calls()]
    named = {id(module): path for path, module in transformer.named_modules()}
    for module in (transformer, *blocks, *attention):
        kind, path = type(module), named.get(id(module), "")
        whole = f"transformer.{path}" if path else "transformer"
        if kind.__call__ is not torch.nn.Module.__call__ and not is_of(kind.__call__, "torch"):
            _refuse(f"{kind.__name__}.__call__ ({whole})", kind.__call__)
        _refuse(f"{kind.__name__}.forward ({whole})", foreign_layer(kind.forward))
        for own in _own_forwards(module):
            _refuse(f"{whole}.forward", foreign_layer(own))


def _own_forwards(module: torch.nn.Module) -> Iterator[Any]:
    """What was set as this very module's forward, and what hooks have put aside and call."""
    found = [vars(module).get(name) for name in ("forward", "_old_forward")]
    registry = getattr(module, "_diffusers_hook", None)
    for each in getattr(registry, "_fn_refs", ()):
        found += [each.forward, each.original_forward]
    yield from (each for each in found if each is not None)


def _refuse(place: str, foreign: Any) -> None:
    if foreign is not None:
        raise UnsupportedPipelineError(
            f"{place} was replaced by {whose(foreign)}, as caches and other tools do, so it is not "
            "known what runs. Switch that tool off, or load the pipeline anew."
        )
