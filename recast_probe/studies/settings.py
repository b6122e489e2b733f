"""What decides the outcome of a study's runs, in JSON's own types, as a store keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from recast_probe.content.description import described as by_content
from recast_probe.content.description import foreign_content
from recast_probe.content.digest import NoContent


def described(value: Any) -> Any:
    """A setting, ready for JSON: as it describes itself, by its fields, or else by its content.

    Lists, mappings and dataclasses are described through and through.

    Raises:
        NoContent: something in it cannot be told from another one by its content.

    Examples:
        >>> described({"budget": rp.budget.Fixed(64), "blocks": (2, 5)})
        {'budget': {'name': 'Fixed', 'tokens': 64}, 'blocks': [2, 5]}
    """
    if hasattr(value, "describe"):
        found = described(value.describe())
        more = described(foreign_content(value))
        return {**found, **more} if isinstance(found, dict) else found
    if is_dataclass(value) and not isinstance(value, type):
        own = {each.name: getattr(value, each.name) for each in fields(value)}
        found = {"name": type(value).__name__, **described(own)}
        return found | described(foreign_content(value))
    if isinstance(value, Mapping):
        if {"is", "sha256"} == value.keys() and value["sha256"] is None:
            raise NoContent(
                f"{value['is']} cannot be told from another one by its content, so results that "
                "depend on it cannot be stored."
            )
        return {name: described(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [described(each) for each in value]
    return repr(value) if isinstance(value, slice) else by_content(value, strict=True)
