"""A pipeline's own attention processors, with a place to step in where they hand attention on.

A hooked processor runs the source of the processor whose place it takes, in that one's module, with
its call of diffusers' ``dispatch_attention_fn`` handed to ``HookedProcessor.dispatch``. So it
computes the same to the last bit, in every version of diffusers. A processor that attends in
several places, or through a function beside it, is hooked in the places that its family names.
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
        site: which of several places it is that is stepped into in the present call.
        earlier: keys and values that are attended to after the block's own; None for none.
    """

    def __init__(self, original: Any) -> None:
        vars(self).update(vars(original))
        self.original = original
        self.attend: Attend | None = None
        self.site = ""
        self.earlier: tuple[Tensor, Tensor] | None = None

    def dispatch(
        self,
        site: str,
        own: Callable[..., Tensor],
        query: Tensor,
        key: Tensor,
        value: Tensor,
        **options: Any,
    ) -> Tensor:
        """Attention's output (batch, token, head, dim), in place of ``own(query, key, value)``."""
        here = site in ("", self.site)
        if here and self.attend is not None:
            return self.attend((query, key, value), options)
        if here and self.earlier is not None:
            key = torch.cat([key, self.earlier[0]], dim=1)
            value = torch.cat([value, self.earlier[1]], dim=1)
        return own(query, key, value, **options)


def hooked(processor: Any, sites: Sequence[Sequence[str]] = ()) -> HookedProcessor:
    """A processor in place of this one, which asks before it attends.

    Args:
        sites: where several places are, each as the names that lead there from the processor:
            ``("dispatch_attention_fn_1",)`` is its second call of that function, and
            ``("helper_0", "dispatch_attention_fn_1")`` the second one inside its first call of a
            function beside it. One or none: it must attend in one place.

    Raises:
        UnsupportedPipelineError: it attends in other places, or its source cannot be had.
    """
    kind: Any = type(processor)
    several = tuple(map(tuple, sites)) if len(sites) > 1 else ()
    return _hooked_class(kind, kind.__call__, several)(processor)


@functools.cache  # one class for all blocks, or each would be compiled again
def _hooked_class(
    kind: Any, call: Any, sites: tuple[tuple[str, ...], ...]
) -> type[HookedProcessor]:
    members: dict[str, Any] = {}
    if not sites:
        function, dispatched = find_dispatch(call)
        _check_source(function, call)
        _hand_over(function, dispatched, "")
    else:
        function = _checked_source(call)
        helpers: dict[str, tuple[Any, ast.FunctionDef]] = {}
        # found first: a call that is handed over no longer counts
        places = [(site, _occurrence(function, call, site[0])) for site in sites]
        inner: list[tuple[ast.FunctionDef, ast.Call, tuple[str, ...]]] = []
        for site, place in places:
            if len(site) == 1:
                inner.append((function, place, site))
                continue
            if site[0] not in helpers:
                own = call.__globals__[site[0].rpartition("_")[0]]
                helper = _checked_source(own)
                helper.args.args.insert(0, ast.arg(SELF))
                helpers[site[0]] = own, helper
                place.func = ast.Attribute(_itself(function), f"_{site[0]}", ast.Load())
            own, helper = helpers[site[0]]
            inner.append((helper, _occurrence(helper, own, site[1]), site))
        for holder, place, site in inner:
            _hand_over(holder, place, site_name(site))
        for name, (own, helper) in helpers.items():
            members[f"_{name}"] = _made(helper, own, own.__name__)
    members["__call__"] = _made(function, call, "__call__")
    return type(f"Hooked{kind.__name__}", (HookedProcessor, kind), members)


SELF = "hooked_processor"


def site_name(operations: Sequence[str]) -> str:
    """A place where a processor attends, as ``HookedProcessor.site`` calls it."""
    return "/".join(operations)


def _itself(function: ast.FunctionDef) -> ast.Name:
    return ast.Name(function.args.args[0].arg, ast.Load())


def _hand_over(function: ast.FunctionDef, dispatched: ast.Call, site: str) -> None:
    """Let the processor's ``dispatch`` answer a call of the function that attends."""
    dispatched.args[:0] = [ast.Constant(site), dispatched.func]
    dispatched.func = ast.Attribute(_itself(function), "dispatch", ast.Load())


def _made(function: ast.FunctionDef, own: Any, name: str) -> FunctionType:
    made = FunctionType(_compiled(function, own), own.__globals__, name, own.__defaults__)
    made.__kwdefaults__ = own.__kwdefaults__
    return made


def _check_source(function: ast.FunctionDef, call: Any) -> None:
    ast.increment_lineno(function, call.__code__.co_firstlineno - 1)
    if _contents(_compiled(function, call)) != _contents(call.__code__):
        raise _unhookable(
            f"The source of {whose(call)} does not give what runs (the file was changed since, or "
            "the function needs its surroundings)"
        )


def _checked_source(call: Any) -> ast.FunctionDef:
    function = _source(call)
    _check_source(function, call)
    return function


def _occurrence(function: ast.FunctionDef, call: Any, name: str) -> ast.Call:
    """The call of a function in a source: "attend_2" is the third call of ``attend``."""
    called, _, number = name.rpartition("_")
    found = [
        each
        for each in ast.walk(function)
        if isinstance(each, ast.Call) and getattr(each.func, "id", None) == called
    ]
    found.sort(key=lambda each: (each.end_lineno, each.end_col_offset))  # as nnsight counts
    if len(found) <= int(number) or not is_of(call.__globals__.get(called), "diffusers"):
        raise _unhookable(
            f"{whose(call)} calls diffusers' {called} in {len(found)} places, and not in one that "
            f"is number {int(number) + 1}"
        )
    return found[int(number)]


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
    function = _source(call)
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


def _source(call: Any) -> ast.FunctionDef:
    try:
        # of the code itself: what it says it wraps is another function
        source = textwrap.dedent(inspect.getsource(code_of(call)))  # type: ignore[arg-type]
        function = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        function = None
    if not isinstance(function, ast.FunctionDef):
        raise _unhookable(f"The source of {whose(call)} cannot be had")
    return function


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
