"""The one way to write an arm of a study as text.

==============================================  ================================================
``recast:budget=25%``                           a method of `interventions.METHODS`; budgets as in
                                                `budget_language`, Eq. 4 where none is said
``prune:rank=cosine,budget=64``                 the same as ``cosine:budget=64``
``reuse:refresh=4+step-cache:computed=20``      several together
``full:steps=14``                               the full run in fewer steps; ``+`` adds the rest
``knockout:from=reference,to=text``             see `Knockout`
``weigh:group=reference,factor=0.5,mode=bias``  see `Weigh`
``token-cache:interval=4``                      see `TokenCache`
==============================================  ================================================

Several numbers or names stand with ``/`` between them: ``blocks=2/5/single.0``, ``steps=0/1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from recast_probe._utils.suggestions import did_you_mean
from recast_probe.datasets import Case
from recast_probe.errors import InputError
from recast_probe.interventions.base import Intervention
from recast_probe.interventions.methods import METHODS
from recast_probe.probe import Probe
from recast_probe.studies.arms.kinds import JOIN, RANKS, kinds
from recast_probe.studies.comparison import FULL, PlannedArm
from recast_probe.studies.named_method import ORACLE, named_method

PRUNE, RANK, NONE = "prune", "rank", "none"


@dataclass(frozen=True)
class Part:
    """One of the parts that stand with a "+" between them.

    Attributes:
        kind: one of `kinds`.
        options: names and texts, in the kind's order.
    """

    kind: str
    options: tuple[tuple[str, str], ...] = ()

    def values(self) -> dict[str, Any]:
        """The options, read."""
        readers = kinds()[self.kind].options
        return {name: readers[name](text) for name, text in self.options}

    def __str__(self) -> str:
        said = ",".join(f"{name}={text}" for name, text in self.options)
        return f"{self.kind}:{said}" if said else self.kind


@dataclass(frozen=True)
class TextArm:
    """An arm that was written as text; its own text, in one order and without spaces, names it.

    Attributes:
        parts: what is done, in this order.

    Examples:
        >>> arm = parse_arm("prune: budget=0.25, rank=cosine + step-cache")
        >>> str(arm), arm.needs_mask, arm.steps
        ('cosine:budget=0.25+step-cache', False, None)
    """

    parts: tuple[Part, ...]

    def __str__(self) -> str:
        return JOIN.join(map(str, self.parts))

    def means(self) -> list[Any]:
        """What tells it from others: two texts may mean one arm, such as 0.25 and 25%."""
        return [(part.kind, part.values()) for part in self.parts]

    @property
    def needs_mask(self) -> bool:
        """Whether its tokens are chosen by the subject's mask."""
        return any(part.kind == ORACLE for part in self.parts)

    @property
    def steps(self) -> int | None:
        """Denoising steps, where they are not the study's."""
        return next(
            (part.values().get("steps") for part in self.parts if part.kind == "full"), None
        )

    def interventions(self, probe: Probe, case: Case) -> list[Intervention]:
        """What is done to the run of one case."""
        found: list[Intervention] = []
        for part in self.parts:
            values, kind = part.values(), kinds()[part.kind]
            if kind.make is not None:
                found.append(kind.made(values))
            elif part.kind != FULL:
                found += named_method(probe, part.kind, **values)(case)
        return found

    def planned(self, probe: Probe) -> PlannedArm:
        """As an arm of a comparison; a store keeps its text."""
        return PlannedArm(
            {"arm": str(self)}, lambda case: self.interventions(probe, case), self.steps
        )


def parse_arm(text: str) -> TextArm:
    """An arm from its text.

    Raises:
        InputError: an unknown kind or option, a value that cannot be read, an option that is there
            twice or is missing, or parts that do not go together.

    Examples:
        >>> parse_arm("weigh:factor=0.5,group=reference,mode=bias").parts[0].values()
        {'group': 'reference', 'factor': 0.5, 'mode': 'bias'}
        >>> str(parse_arm("reuse+step-cache")), parse_arm("full:steps=14").steps
        ('reuse+step-cache', 14)
    """
    arm = TextArm(tuple(_part(each, text) for each in text.split(JOIN)))
    names = [part.kind for part in arm.parts]
    if len(names) > 1 and Part(FULL) in arm.parts:
        raise _error(text, "full does nothing to a run; leave it out, or give its steps")
    if NONE in names and set(names) & set(METHODS) - {NONE, FULL}:
        raise _error(text, "none leaves no reference token that could be chosen or kept")
    twice = [name for name in METHODS if names.count(name) > 1]
    if twice:
        raise _error(text, f"{twice[0]!r} is there twice")
    return arm


def own_arms(texts: Iterable[str]) -> dict[str, TextArm]:
    """Arms from their texts, by the name of each.

    Raises:
        InputError: as `parse_arm`; or one arm is there twice.

    Examples:
        >>> list(own_arms(["random:budget=64", "full : steps=14"]))
        ['random:budget=64', 'full:steps=14']
    """
    found: dict[str, TextArm] = {}
    for arm in map(parse_arm, texts):
        for other in found.values():
            if arm.means() == other.means():
                raise InputError(
                    f"The arm {str(arm)!r} is there twice"
                    + ("" if str(arm) == str(other) else f", also as {str(other)!r}")
                    + "; name it once."
                )
        found[str(arm)] = arm
    return found


def _part(text: str, arm: str) -> Part:
    name, _, said = (each.strip() for each in text.partition(":"))
    given = _options(said, arm) if said else {}
    if name == PRUNE:
        name = _rank(given, arm)
    if name not in kinds():
        known = (PRUNE, *kinds())
        raise _error(
            arm, f"there is no kind {name[:60]!r}; there is {', '.join(known)}", name, known
        )
    kind = kinds()[name]
    unknown = next((each for each in given if each not in kind.options), None)
    if unknown is not None:
        takes = ", ".join(kind.options) or "no options"
        raise _error(
            arm, f"{name} has no option {unknown[:60]!r}; it takes {takes}", unknown, kind.options
        )
    if missing := [each for each in kind.required if each not in given]:
        raise _error(arm, f"{name} needs {' and '.join(missing)}")
    part = Part(name, tuple((each, given[each]) for each in kind.options if each in given))
    for option, value in part.options:
        try:
            kind.options[option](value)
        except InputError as error:
            raise _error(arm, f"{option}: {str(error).rstrip('.?')}") from None
    if kind.make is not None:
        try:
            kind.made(part.values())
        except InputError as error:
            raise _error(arm, str(error).rstrip(".")) from None
    return part


def _options(said: str, arm: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in said.split(","):
        name, equals, value = (part.strip() for part in each.partition("="))
        value = re.sub(r"\s", "", value)
        if not (name and equals and value):
            raise _error(arm, f"{each.strip()[:60]!r} should read OPTION=VALUE")
        if name in found:
            raise _error(arm, f"the option {name[:60]!r} is there twice")
        found[name] = value
    return found


def _rank(given: dict[str, str], arm: str) -> str:
    """The method that prunes by the rank of these options, which is taken out of them."""
    rank = given.pop(RANK, None)
    if rank is None:
        raise _error(arm, f"prune needs rank, one of {', '.join(RANKS)}")
    if rank not in RANKS:
        said = f"there is no rank {rank[:60]!r}; there is {', '.join(RANKS)}"
        raise _error(arm, said, rank, RANKS)
    return rank


def _error(arm: str, what: str, name: str = "", known: Iterable[str] = ()) -> InputError:
    return InputError(f"The arm {arm[:120]!r}: {what}.{did_you_mean(name, known) if name else ''}")
