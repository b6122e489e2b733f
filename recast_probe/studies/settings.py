"""What decides the outcome of a study's runs, in JSON's own types, as a store keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any


def described(value: Any) -> Any:
    """A setting, ready for JSON: as it describes itself, by its fields, or else as it is.

    Lists, mappings and dataclasses are described through and through.

    Examples:
        >>> described({"budget": rp.budget.Fixed(64), "blocks": (2, 5)})
        {'budget': {'name': 'Fixed', 'tokens': 64}, 'blocks': [2, 5]}
    """
    if hasattr(value, "describe"):
        return described(value.describe())
    if is_dataclass(value) and not isinstance(value, type):
        return {"name": type(value).__name__, **{k: described(v) for k, v in vars(value).items()}}
    if isinstance(value, Mapping):
        return {name: described(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [described(each) for each in value]
    return repr(value) if isinstance(value, slice) else value
