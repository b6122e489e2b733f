"""The content of code: what a function or a class does, without where it was written."""

from __future__ import annotations

import dis
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from types import CodeType, FunctionType
from typing import Any

_KNOWN: dict[int, tuple[CodeType, bytes]] = {}


def code_digest(code: CodeType) -> bytes:
    """SHA-256 of bytecode, constants and names; files, line numbers and comments do not count."""
    known = _KNOWN.get(
        id(code)
    )  # code never changes, and is kept here so that its id stays its own
    if known is not None:
        return known[1]
    digest = hashlib.sha256(code.co_code)
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    digest.update(repr((shape, names)).encode("utf-8", "surrogatepass"))
    for constant in code.co_consts:
        digest.update(_constant(constant))
    digest.update(code.co_exceptiontable)
    _KNOWN[id(code)] = (code, digest.digest())
    return _KNOWN[id(code)][1]


def _constant(value: Any) -> bytes:
    if isinstance(value, CodeType):
        return code_digest(value)
    if isinstance(value, tuple | frozenset):
        parts = [_constant(each) for each in value]
        # a frozenset has another order in every process
        text = b"".join(sorted(parts) if isinstance(value, frozenset) else parts)
    else:
        text = repr(value).encode("utf-8", "surrogatepass")
    return hashlib.sha256(f"{type(value).__name__} ".encode() + text).digest()


def functions_of(attribute: Any) -> list[FunctionType]:
    """The plain functions behind an attribute of a class: method, property, classmethod..."""
    if isinstance(attribute, FunctionType):
        return [attribute]
    if isinstance(attribute, property):
        found = (attribute.fget, attribute.fset)
        return [each for each in found if isinstance(each, FunctionType)]
    inner = (getattr(attribute, name, None) for name in ("__func__", "func", "__wrapped__"))
    return [each for each in inner if isinstance(each, FunctionType)]


def code_tree(function: FunctionType) -> bytes:
    """Code of a function and, where it is wrapped, of the functions that it closes over."""
    digest, seen, waiting = hashlib.sha256(), set(), [function]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        digest.update(code_digest(each.__code__))
        for cell in each.__closure__ or ():
            try:
                inside = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if isinstance(inside, FunctionType):
                waiting.append(inside)
    return digest.digest()


@lru_cache(maxsize=4096)
def _is_installed(name: str, file: str | None) -> bool:
    root = name.partition(".")[0]
    if root == "recast_probe" or root in sys.builtin_module_names:
        return True
    if file is None:  # the prompt, a notebook: the user's; an extension: installed
        return root not in ("__main__", "__mp_main__") and root in sys.stdlib_module_names
    paths = {sysconfig.get_path(each) for each in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(f"/{each}/" in file for each in ("site-packages", "dist-packages")) or any(
        file.startswith(f"{path}/") for path in paths
    )


def is_installed(module: str | None) -> bool:
    """Whether a module belongs to a package with a version, and not to the user."""
    found = sys.modules.get(module or "")
    return _is_installed(module or "", getattr(found, "__file__", None))


@lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> frozenset[str]:
    names = {each.argval for each in dis.get_instructions(code) if each.opname in _LOADS_GLOBAL}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _global_names(constant)
    return frozenset(names)


_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")


def globals_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names outside a function that it reads, with what they stand for now, in order of name."""
    known = function.__globals__
    for name in sorted(_global_names(function.__code__)):
        if name in known:
            yield name, known[name]


@lru_cache(maxsize=256)
def names_set_in(made: type, methods: frozenset[str]) -> frozenset[str]:
    """Attributes that methods of a class store, and the methods and properties that these use."""
    found: set[str] = set()
    waiting, seen = set(methods), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for function in _functions_named(made, name, name in found):
            for each in _instructions(function.__code__):
                if each.opname == "STORE_ATTR":
                    # a setter that was passed as a mere getter counts after all
                    waiting |= {each.argval} - found
                    found.add(each.argval)
                elif each.opname in _LOADS_ATTRIBUTE:
                    waiting |= {each.argval} - seen
    return frozenset(found)


_LOADS_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")


def _functions_named(made: type, name: str, stored: bool) -> Iterator[FunctionType]:
    for cls in made.__mro__:
        attribute = vars(cls).get(name)
        setter = [] if stored or not isinstance(attribute, property) else [attribute.fset]
        yield from (inspect.unwrap(f) for f in functions_of(attribute) if f not in setter)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    """Of code and of the functions and comprehensions inside it."""
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
