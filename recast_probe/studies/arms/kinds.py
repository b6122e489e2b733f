"""What an arm may be made of: kinds by name, and how the text of each option is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from recast_probe._utils.checks import check_int
from recast_probe._utils.suggestions import did_you_mean
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.knockout import Knockout
from recast_probe.interventions.methods import METHODS, REUSING, WITHOUT_BUDGET
from recast_probe.interventions.reuse import ReuseReference
from recast_probe.interventions.step_cache import StepCache
from recast_probe.interventions.token_cache import TokenCache
from recast_probe.interventions.token_groups import TEXT_PARTS
from recast_probe.interventions.weigh import Weigh
from recast_probe.selection.budget_language import as_budget
from recast_probe.studies.comparison import FULL
from recast_probe.studies.named_method import ORACLE

RANKED = ("recast", "self-attention", "cosine", "reversed")
RANKS = (*RANKED, "random", "random-per-step", "uniform", ORACLE)
JOIN = "+"
GROUPS = ("reference", "generation", "text", *TEXT_PARTS)


def _word(text: str) -> str:
    if not re.fullmatch(r"[\w.-]+", text):
        raise InputError(f"{text!r} is no name")
    return text


def _group(text: str) -> str:
    if text not in GROUPS and not re.fullmatch("reference_[0-9]+", text):
        raise InputError(
            f"there is no token group {text!r}; there is {', '.join(GROUPS)}, and reference_0, "
            f"reference_1 and so on{did_you_mean(text, GROUPS)}"
        )
    return text


def _whole(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise InputError(f"{text!r} is no whole number")
    return int(text)


def _number(text: str) -> float:
    if not re.fullmatch(r"-?([0-9]{1,9}(\.[0-9]{0,12})?|\.[0-9]{1,12})", text):
        raise InputError(f"{text!r} is no number")
    return float(text)


def _steps(text: str) -> int:
    return check_int("steps", _whole(text), 1)


def _computed(text: str) -> Any:
    found = _several(lambda part: _whole(part) if part.isdecimal() else _number(part))(text)
    return StepCache(found).computed


def _refresh(text: str) -> Any:
    return ReuseReference(refresh=_several(_whole)(text)).refresh


def _several(read: Callable[[str], Any]) -> Callable[[str], Any]:
    def read_all(text: str) -> Any:
        found = tuple(read(part) for part in text.split("/"))
        return found if len(found) > 1 else found[0]

    return read_all


def _block(text: str) -> int | str:
    return _whole(text) if re.fullmatch("[0-9]+", text) else _word(text)


def _blocks(text: str) -> Any:
    found = _several(_block)(text)
    return list(found) if isinstance(found, tuple) else found


Readers = Mapping[str, Callable[[str], Any]]


@dataclass(frozen=True)
class Kind:
    """What may stand before the colon.

    Attributes:
        options: by name, a reader of their text.
        make: an intervention from the options; None for methods by name, which ask the probe.
        arguments: what `make` calls an option, where that is another name.
        required: options without a default.
    """

    options: Readers
    make: Callable[..., Intervention] | None = None
    arguments: Mapping[str, str] | None = None
    required: tuple[str, ...] = ()

    def made(self, values: Mapping[str, Any]) -> Intervention:
        """The intervention of these options."""
        assert self.make is not None
        names = self.arguments or {}
        return self.make(**{names.get(name, name): value for name, value in values.items()})


_PLACES: Readers = {"blocks": _blocks, "heads": _several(_whole), "steps": _several(_whole)}


def _cut(from_group: str = "reference", to_group: str = "generation", **more: Any) -> Knockout:
    return Knockout(from_group, to_group, **more)


def _method_options(name: str) -> Readers:
    options: dict[str, Callable[[str], Any]] = {}
    if name not in WITHOUT_BUDGET:
        options["budget"] = as_budget
    if name in (*RANKED, *REUSING):
        options["blocks"] = _blocks
    if name in REUSING:
        options["refresh"] = _refresh
    if name == "step-cache":
        options["computed"] = _computed
    if name == FULL:
        options["steps"] = _steps
    return options


@cache
def kinds() -> Mapping[str, Kind]:
    """Every kind by its name; "prune" is read as the method of its rank."""
    found = {name: Kind(_method_options(name)) for name in METHODS if JOIN not in name}
    found["knockout"] = Kind(
        {"from": _group, "to": _group, **_PLACES, "removal": _word},
        _cut,
        {"from": "from_group", "to": "to_group"},
    )
    found["weigh"] = Kind(
        {"group": _group, "factor": _number, "to": _group, "mode": _word, **_PLACES},
        Weigh,
        {"to": "to_group"},
        ("group", "factor"),
    )
    found["token-cache"] = Kind(
        {"interval": _whole, "share": _number, "score": _word, "pool": _word},
        TokenCache,
        {"share": "fresh_share"},
    )
    return found
