"""What a class is: its name, and the code of its methods and its bases' as it is now."""

from __future__ import annotations

import types
from enum import Enum
from functools import cached_property
from typing import Any

from recast_probe.content.code_digest import (
    code_tree,
    functions_of,
    is_installed,
    is_installed_class,
    version_of,
)
from recast_probe.content.module_content import Digests

_METHODS = (types.FunctionType, property, cached_property)
_PLACES = (types.MemberDescriptorType, types.GetSetDescriptorType)
_MAKING = {"__init__", "__setstate__", "__getstate__"}


def name_of(made: Any) -> str:
    """Module and qualified name of a class or a function."""
    return f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', repr(type(made)))}"


def versioned(made: Any) -> str:
    """``name_of``, with the version of a package that does not take part in every result."""
    module = getattr(made, "__module__", None)
    version = version_of(module) if is_installed(module) else ""
    return f"{name_of(made)} {version}" if version else name_of(made)


def _decides(name: str, attribute: Any) -> bool:
    """Whether an attribute of a class, no method, can decide what its objects do."""
    if isinstance(attribute, _PLACES) or name == "_abc_impl":
        return False
    return not name.startswith("__") or callable(attribute) or bool(functions_of(attribute))


def class_digest(value: type, contents: Digests, known: dict[type, bytes]) -> bytes:
    """SHA-256 of a class.

    Args:
        contents: digests of values.
        known: those of classes met before; it is added to.
    """
    if value in known:
        return known[value]
    known[value] = contents.of("class", name_of(value))  # where a method leads back to it
    if value.__module__ == "builtins":  # nnsight hangs a method on object
        return known[value]
    installed, enum = is_installed_class(value), issubclass(value, Enum)
    found = []
    for name, attribute in vars(value).items():
        functions = functions_of(attribute)
        if installed:
            # what only makes objects says nothing of one that is there; torch.compile tags it
            if name not in _MAKING:
                found += [contents(name) + code_tree(each) for each in functions]
        elif functions and isinstance(attribute, _METHODS):
            found.append(contents(name) + contents.of("methods", *functions))
        elif _decides(name, attribute) and not (enum and name.startswith("_")):
            # a member leads back to its class
            member = enum and isinstance(attribute, value)
            told = [attribute.name, attribute.value] if member else attribute
            found.append(contents(name) + contents(told))
    bases = [class_digest(each, contents, known) for each in value.__bases__ if each is not object]
    if not is_installed_class(type(value)):
        bases.append(class_digest(type(value), contents, known))
    named = versioned(value) if installed else name_of(value)
    known[value] = contents.join("class", [contents(named), *sorted(found), *bases])
    return known[value]
