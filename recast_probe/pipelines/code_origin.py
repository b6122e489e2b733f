"""Whether a call runs a library's own code, or somebody else's in its place.

Tools that change a model replace a function on an instance or on a class. Names survive that, so
the code itself is asked: the file it was compiled from, and the name it was defined under.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from types import CodeType
from typing import Any

# what wraps forwards without changing what they compute
WRAPPING = ("accelerate", "nnsight", "torch")


@functools.cache
def _folder(package: str) -> str | None:
    found = importlib.util.find_spec(package)
    return None if found is None or found.origin is None else os.path.dirname(found.origin) + os.sep


def code_of(function: Any) -> CodeType | None:
    """The code that a function, a bound method, a partial or a callable object runs; None where it
    has none."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if callable(function) and not (hasattr(function, "__code__") or isinstance(function, type)):
        function = type(function).__call__
    return getattr(function, "__code__", None)


def is_of(function: Any, *packages: str) -> bool:
    """Whether the function was compiled from a file of one of these packages."""
    code = code_of(function)
    folders = [_folder(package) for package in packages]
    return code is not None and any(each and code.co_filename.startswith(each) for each in folders)


def _layers(function: Any) -> Iterator[Any]:
    """A function and what it says it wraps, outermost first."""
    while function is not None:
        yield function
        function = _held_by_nnsight(function) or getattr(function, "__wrapped__", None)


def _held_by_nnsight(function: Any) -> Any | None:
    """What a stand-in of nnsight calls: it names the class's function as what it wraps, and runs
    the one that it found on the object."""
    if not is_of(function, "nnsight"):
        return None
    if inspect.isfunction(function):
        return inspect.getclosurevars(function).nonlocals.get("forward")
    return getattr(getattr(function, "state", None), "original", None)


def is_as_written(kind: type, function: Any) -> bool:
    """Whether a function is a method as it stands in the source of a class, or of one that the
    class inherits from: defined under its name, in the file of its module."""
    code = code_of(function)
    if code is None:
        return False
    for owner in kind.__mro__:
        if code.co_qualname == f"{owner.__qualname__}.{code.co_name}":
            file = getattr(sys.modules.get(owner.__module__), "__file__", None)
            # what is typed into a session has no file
            return file is None or os.path.samefile(code.co_filename, file)
    return False


def foreign_layer(function: Any, written: type | None = None) -> Any | None:
    """The outermost of the functions that a call runs through which is neither of diffusers nor a
    known wrapper of such a one; None where there is none.

    Args:
        written: a class whose own methods, as its source has them, are known as well, and so are
            PyTorch's.
    """
    layers = list(_layers(function))
    wrapping, innermost = layers[:-1], layers[-1]
    for each in wrapping:
        if not is_of(each, "diffusers", *WRAPPING):
            return each
    if written is not None and (is_of(innermost, "torch") or is_as_written(written, innermost)):
        return None
    return None if is_of(innermost, "diffusers") else innermost


def whose(function: Any) -> str:
    """Where a function was defined, for a message."""
    code = code_of(function)
    if code is None:
        return f"{function!r:.80}"
    return f"{code.co_qualname} ({os.path.basename(code.co_filename)})"


def foreign_part(processor: Any, *, written: bool = False) -> Any | None:
    """What an attention processor runs that is not diffusers' own: its ``__call__``, or a function
    that this one calls by name; None where all of it is. What is inherited is diffusers' own.

    Args:
        written: its class's own ``__call__``, as its source has it, may be anybody's.
    """
    call = type(processor).__call__
    if written and is_as_written(type(processor), call):
        return None
    if not is_of(call, "diffusers"):
        return call
    code, names = code_of(call), getattr(call, "__globals__", {})
    for name in () if code is None else code.co_names:
        if code_of(names.get(name)) is not None and not is_of(names[name], "diffusers"):
            return names[name]
    return None
