"""What every figure's function does with its arguments, before it draws."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from recast_probe.errors import InputError
from recast_probe.figures import style
from recast_probe.images.loading import load_image
from recast_probe.profiles.profile_input import as_profile

Given = ParamSpec("Given")
Drawn = TypeVar("Drawn")


def figure_function(draw: Callable[Given, Drawn]) -> Callable[Given, Drawn]:
    """In the house style; a path stands for its picture, and a run for its profile.

    Raises:
        InputError: when called: the first argument is not what the figure draws.
    """
    signature = inspect.signature(draw)
    kinds = {name: str(each.annotation) for name, each in signature.parameters.items()}
    first = next(iter(kinds))
    pictures = [name for name, kind in kinds.items() if kind.startswith("Image.Image")]

    @wraps(draw)
    def wrapped(*arguments: Given.args, **options: Given.kwargs) -> Drawn:
        bound = signature.bind(*arguments, **options)
        given = bound.arguments
        if kinds[first] == "AttentionProfile":
            given[first] = as_profile(given[first])
        else:
            _check(draw.__name__, given[first], kinds[first])
        for name in pictures:
            if isinstance(given.get(name), str | Path):
                given[name] = load_image(given[name])
        with style.house_style():
            return draw(*bound.args, **bound.kwargs)

    return wrapped


def _check(name: str, given: object, annotation: str) -> None:
    """By the names of the types: a figure's module knows what it draws for type checkers only."""
    wanted = [each.split("[")[0].strip() for each in annotation.split("|")]
    known = [each.__name__ for each in type(given).__mro__]
    if isinstance(given, Mapping):
        known.append("Mapping")
    if not set(wanted) & set(known):
        what = type(given).__name__
        if isinstance(given, list | tuple):
            what += f" of {len(given)}; draw one after the other"
        raise InputError(f"{name} takes {' or '.join(wanted)}, not {what}.")
