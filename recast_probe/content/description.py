"""Values in JSON's own types, each with the digest of its content."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.content.class_digest import name_of
from recast_probe.content.digest import SIMPLE, NoContent, content_digest


def described(value: Any, *, strict: bool = False, name: str = "") -> Any:
    """A value in JSON's own types, for people and for telling it from any other.

    Simple values, lists and mappings stay, but a mapping with keys that are no text becomes
    {"is": "mapping", "items": pairs of a key and a value}, and numbers that are not finite become
    text; anything else becomes {"is": what it is in words, "sha256": its ``content_digest``}.

    Args:
        strict: refuse what has no content, as needed where results are stored; else its "sha256"
            is None.
        name: what a refusal calls it.

    Raises:
        NoContent: see ``strict``.
    """
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    if isinstance(value, SIMPLE):
        return value
    if isinstance(value, Mapping):
        items = [
            (key, described(item, strict=strict, name=f"{name}[{key!r}]"))
            for key, item in value.items()
        ]
        if all(isinstance(key, str) for key, _ in items):
            return {str(key): item for key, item in items}
        pairs = [[described(key, strict=strict, name=f"A key of {name}"), i] for key, i in items]
        return {"is": "mapping", "items": sorted(pairs, key=lambda pair: repr(pair[0]))}
    if isinstance(value, list | tuple):
        return [
            described(item, strict=strict, name=f"{name}[{number}]")
            for number, item in enumerate(value)
        ]
    if isinstance(value, np.generic) and isinstance(value.item(), SIMPLE):
        return described(value.item())
    try:
        digest = content_digest(value)
    except NoContent as error:
        if strict:
            raise NoContent(
                f"{name or 'A value'} cannot be told from another one by its content ({error}), so "
                "results that depend on it cannot be stored. Give plain functions, numbers, arrays "
                "or objects of them, leave out the rest in its __getstate__ (or give a metric a "
                "metric_name), or run without a folder."
            ) from error
        digest = None
    return {"is": _in_words(value), "sha256": digest}


def is_own(value: Any) -> bool:
    """Whether an object's class, or a function, is of this package, and so told by its version."""
    made = value if isinstance(value, types.FunctionType) else type(value)
    return made.__module__.partition(".")[0] == __name__.partition(".")[0]


def describe_setting(value: Any, *, strict: bool = False) -> Any:
    """A setting, ready for JSON: as it describes itself, by its fields, or else by its content.

    Lists and dataclasses are described through and through.

    Args:
        strict: as where results are stored: go through mappings as well, tell sets, ranges and
            arrays from lists, and refuse what has no content.

    Raises:
        NoContent: see ``strict``.

    Examples:
        >>> describe_setting({"budget": rp.budget.Fixed(64), "blocks": (2, 5)}, strict=True)
        {'budget': {'name': 'Fixed', 'tokens': 64}, 'blocks': [2, 5]}
    """
    walk = partial(describe_setting, strict=strict)
    if hasattr(value, "describe"):
        found = walk(value.describe()) if strict else value.describe()
        # what `describe_by_name` adds for a user's class is not digested again
        told = is_own(getattr(type(value), "describe", None)) and "its content" in found
        more = isinstance(found, Mapping) and not told
        return {**found, **_foreign_content(value, strict)} if more else found
    if is_dataclass(value) and not isinstance(value, type):
        return describe_by_name(value, strict)
    if strict and isinstance(value, Mapping):
        if {"is", "sha256"} == value.keys() and value["sha256"] is None:
            raise NoContent(
                f"{value['is']} cannot be told from another one by its content, so results that "
                "depend on it cannot be stored."
            )
        return {name: walk(each) for name, each in value.items()}
    if not strict and isinstance(value, set | frozenset):
        return sorted(map(walk, value), key=repr)
    row = isinstance(value, range) or (isinstance(value, np.ndarray) and value.ndim == 1)
    if isinstance(value, list | tuple) or (row and not strict):
        return [walk(each) for each in value]
    return repr(value) if isinstance(value, slice) else described(value, strict=strict)


def describe_by_name(value: Any, strict: bool = False) -> dict[str, Any]:
    """Class and settings: the fields of a dataclass, or else all attributes."""
    if is_dataclass(value):
        own = [each.name for each in fields(value)]
        settings = {name: describe_setting(getattr(value, name), strict=strict) for name in own}
    else:  # which may lead back to it
        settings = {name: described(each) for name, each in vars(value).items()}
    return {"name": type(value).__name__, **settings, **_foreign_content(value, strict)}


def _foreign_content(value: Any, strict: bool) -> dict[str, Any]:
    """What an object of a user's class, or a user's function, is by its content, as
    {"its content": ...}; nothing for this package's own.

    The settings that a user's object tells do not say what it does: a class of the same name may
    do something else tomorrow.
    """
    if is_own(value):
        return {}
    return {"its content": described(value, strict=strict, name=_in_words(value))}


def metric_identity(metric: Any, name: str | None = None) -> dict[str, Any]:
    """A metric by its content, for the settings of a study.

    Args:
        name: what its user calls it. Where it has no content, the name has to tell it from others.

    Raises:
        NoContent: it has neither content nor a name.
    """
    found = described(metric, strict=name is None, name="The metric")
    return {"name": name or getattr(metric, "__name__", ""), **found}


def _in_words(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        return f"{kind} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Image.Image):
        return f"picture {value.width} x {value.height} {value.mode}"
    if isinstance(value, type | types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return name_of(value)
    return name_of(type(value))
