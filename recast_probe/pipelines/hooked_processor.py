"""A pipeline's own attention processors, with a place to step in where they hand attention on.

A hooked processor runs the source of the processor whose place it takes, in that one's module, with
its one call of diffusers' ``dispatch_attention_fn`` handed to ``HookedProcessor.dispatch``. So it
computes the same to the last bit, in every version of diffusers.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import Tensor

from recast_probe.errors import UnsupportedPipelineError
from recast_probe.pipelines.code_origin import code_of, is_of, whose

Attend = Callable[[Sequence[Tensor], Mapping[str, Any]], Tensor]
DISPATCH = "dispatch_attention_fn"
_REPEATED = (ast.For, ast.While, ast.comprehension, ast.FunctionDef, ast.Lambda)


class HookedProcessor:
    """Base of the classes that ``hooked`` makes; one object belongs to one block.

    A block that is compiled sees nothing but tensors here, so that the blocks share one compiled
    graph for each number of tokens.

    Attributes:
        original: the processor whose place it took, and whose attributes it has.
        attend: attention of the present call, given (query, key, value) as (batch, token, head,
            dim) and the dispatch's options; None for the pipeline's own.
        earlier: keys and values that are attended to after the block's own; None for none.
    """

    def __init__(self, original: Any) -> None:
        vars(self).update(vars(original))
        self.original = original
        self.attend: Attend | None = None
        self.earlier: tuple[Tensor, Tensor] | None = None

    def dispatch(
        self, own: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor, **options: Any
    ) -> Tensor:
        """Attention's output (batch, token, head, dim), in place of ``own(query, key, value)``."""
        if self.attend is not None:
            return self.attend((query, key, value), options)
        if self.earlier is not None:
            key = torch.cat([key, self.earlier[0]], dim=1)
            value = torch.cat([value, self.earlier[1]], dim=1)
        return own(query, key, value, **options)


def hooked(processor: Any) -> HookedProcessor:
    """A processor in place of this one, which asks before it attends.

    Raises:
        UnsupportedPipelineError: it attends in more or fewer than one place, or its source cannot
            be had.
    """
    kind: Any = type(processor)
    return _hooked_class(kind, kind.__call__)(processor)


@functools.cache  # one class for all blocks, or each would be compiled again
def _hooked_class(kind: Any, call: Any) -> type[HookedProcessor]:
    function, dispatched = find_dispatch(call)
    ast.increment_lineno(function, call.__code__.co_firstlineno - 1)
    if _contents(_compiled(function, call)) != _contents(call.__code__):
        raise _unhookable(
            f"The source of {whose(call)} does not give what runs (the file was changed since, or "
            "the function needs its surroundings)"
        )
    processor = ast.Name(function.args.args[0].arg, ast.Load())
    dispatched.args.insert(0, dispatched.func)
    dispatched.func = ast.Attribute(processor, "dispatch", ast.Load())
    made = FunctionType(_compiled(function, call), call.__globals__, "__call__", call.__defaults__)
    made.__kwdefaults__ = call.__kwdefaults__
    return type(f"Hooked{kind.__name__}", (HookedProcessor, kind), {"__call__": made})


def _compiled(function: ast.FunctionDef, call: Any) -> CodeType:
    tree = ast.fix_missing_locations(ast.Module([function], []))
    module = compile(tree, call.__code__.co_filename, "exec")
    codes = (each for each in module.co_consts if isinstance(each, CodeType))
    return next(each for each in codes if each.co_name == function.name)


def _contents(code: CodeType) -> tuple[Any, ...]:
    """Names and constants of a function, in order; its instructions depend on what surrounds it."""
    constants = [each for each in code.co_consts if not isinstance(each, CodeType)]
    return code.co_varnames, code.co_names, code.co_freevars, constants


def find_dispatch(call: Any) -> tuple[ast.FunctionDef, ast.Call]:
    """The source of a processor's ``__call__``, and in it the one call of diffusers' dispatch.

    Raises:
        UnsupportedPipelineError: the source cannot be had, or attention is dispatched in more or
            fewer than one place, or in a loop.
    """
    try:
        # of the code itself: what it says it wraps is another function
        source = textwrap.dedent(inspect.getsource(code_of(call)))  # type: ignore[arg-type]
        function = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        function = None
    if not isinstance(function, ast.FunctionDef):
        raise _unhookable(f"The source of {whose(call)} cannot be had")
    parts = list(ast.walk(function))
    named = [each for each in parts if getattr(each, "id", None) == DISPATCH]
    calls = [each for each in parts if isinstance(each, ast.Call) and each.func in named]
    repeated = [each for each in parts[1:] if isinstance(each, _REPEATED)]
    once = not any(one in ast.walk(each) for one in calls for each in repeated)
    own = is_of(getattr(call, "__globals__", {}).get(DISPATCH), "diffusers")
    if not (len(named) == len(calls) == 1 and once and own):
        raise _unhookable(
            f"{whose(call)} calls diffusers' {DISPATCH} in {len(named)} places and not in one that "
            "is passed once"
        )
    return function, calls[0]


def _unhookable(reason: str) -> UnsupportedPipelineError:
    return UnsupportedPipelineError(
        f'{reason}, so its attention can be reached by nnsight only; leave out attachment="hooks".'
    )


def refuse_accelerated(transformer: torch.nn.Module) -> None:
    """Raise UnsupportedPipelineError where hooked processors are in place already."""
    processors = (getattr(module, "processor", None) for module in transformer.modules())
    if any(isinstance(processor, HookedProcessor) for processor in processors):
        raise UnsupportedPipelineError(
            "The pipeline, or another one with the same transformer, is accelerated already; call "
            "restore() of what accelerate() gave, or leave its with block first."
        )
