"""The page that a script writes about its own results, and the sentences on it.

Sentences follow from the numbers by a rule: where an interval holds the value that means "no
difference", they say that nothing can be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recast_probe.studies import markdown
from recast_probe.studies.tables import p_value


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading; none for the first part.
        text: what is measured and how to read it.
        rows: of its table.
        figure: the name of one of the script's figures.
        alt: what the figure shows.
        says: what follows from the numbers, a sentence each.
    """

    title: str = ""
    text: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    figure: str | None = None
    alt: str = ""
    says: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """What a script says about its results."""

    title: str
    sections: Sequence[Section]


def page_text(page: Page, command: str, facts: Mapping[str, Any], images: Mapping[str, str]) -> str:
    """The page as Markdown.

    Args:
        command: that makes it.
        facts: settings of the study; its model, weights and versions are told.
        images: where each figure's file is, seen from the page.
    """
    parts = [f"# {page.title}", made(command, facts)]
    for section in page.sections:
        parts += [f"## {section.title}"] if section.title else []
        parts += [section.text] if section.text else []
        if section.figure is not None:
            parts.append(f"![{section.alt}]({images[section.figure]})")
        rows = list(section.rows)
        parts += [markdown(rows)] if rows else []
        parts += ["\n".join(f"- {sentence}" for sentence in section.says)] if section.says else []
    return "\n\n".join(parts) + "\n"


def made(command: str, facts: Mapping[str, Any]) -> str:
    """By which command, on which weights, with which versions."""
    versions = facts["versions"]
    used = ", ".join(
        f"{name} {versions[name]}"
        for name in ("recast_probe", "torch", "diffusers", "nnsight")
        if name in versions
    )
    weights = str(facts.get("fingerprint", ""))[:8]
    return (
        f"Written by `{command}`, on {facts['model']}"
        + (f" (weights {weights})" if weights else "")
        + f", with {used}. Intervals are 95 % over subjects, p-values flip the signs of whole "
        "subjects, and both are about this model and its benchmark."
    )


def ends(found: Mapping[str, Any], form: str = ".3f") -> str:
    """A mean and its interval in brackets, or that none can be told."""
    low, high = found["low"], found["high"]
    if low is None or low != low:
        return f"{found['mean']:{form}} [cannot tell]"
    return f"{found['mean']:{form}} [{low:{form}}, {high:{form}}]"


def decided(found: Mapping[str, Any], null: float = 0.0) -> int:
    """1 where all of the interval is above, -1 where all is below, 0 where that cannot be told."""
    low, high = found["low"], found["high"]
    if low is None or low != low:
        return 0
    return int(low > null) - int(high < null)


def higher(first: str, second: str, found: Mapping[str, Any], what: str = "identity") -> str:
    """Which of two has more of something, if that can be told.

    Args:
        found: of first minus second, with mean, low, high, and p_value where one was taken.
    """
    number = ends(found)
    if found.get("p_value") is not None:
        number += f", p {p_value(found['p_value'])}"
    way = decided(found)
    if way == 0:
        return f"{first} and {second} cannot be told apart in {what}: {number}."
    return f"{first} has {'more' if way > 0 else 'less'} {what} than {second}: {number}."


def against(what: str, found: Mapping[str, Any], value: float, words: str) -> str:
    """Whether a quantity is above or below a value that the paper or chance gives."""
    sides = {1: "above", -1: "below", 0: "not told apart from"}
    return f"{what} is {sides[decided(found, value)]} {words}: {ends(found)}."
