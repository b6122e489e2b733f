"""The page that a script writes about its own results, and the sentences on it.

Sentences follow from the numbers by a rule: a difference is decided where its interval leaves out 0
and its p-value, corrected after Holm, is at most 0.05; else they say that nothing can be told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe.studies import holm, markdown
from recast_probe.studies.tables import p_value

LEVEL = 0.05  # of corrected p-values


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


def side(found: Mapping[str, Any], null: float = 0.0) -> int:
    """1 where all of the interval is above, -1 where all is below, 0 where that cannot be told."""
    low, high = found["low"], found["high"]
    if low is None or low != low:
        return 0
    return int(low > null) - int(high < null)


def decided(found: Mapping[str, Any]) -> int:
    """1 where a difference is above 0, -1 where it is below, 0 where that is not decided.

    Args:
        found: with low, high and p_holm. Both must say so: the interval leaves out 0, and the
            corrected p-value is at most `LEVEL`.
    """
    # no p-value (NaN, of a single subject) decides nothing
    return side(found) if found["p_holm"] <= LEVEL else 0


def corrected(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Differences with `p_holm`: their p-values corrected for one another after Holm.

    Args:
        found: all differences of which a section says something, with p_value; where one has a
            p_holm over the arms of its table, the larger of the two stays.
    """
    among = holm([each["p_value"] for each in found])
    return [
        {**each, "p_holm": float(np.fmax(p, each.get("p_holm", np.nan)))}
        for each, p in zip(found, among, strict=True)
    ]


def too_few(subjects: float, comparisons: int) -> str:
    """The sentence that so few subjects decide none of the comparisons; none where they may."""
    least = 2.0 ** (1 - subjects)  # 2 / 2**subjects is too large from 1,024 on
    if least * comparisons <= LEVEL:
        return ""
    return (
        f"{subjects:g} subjects cannot give a p-value below {least:.2g}, which is "
        f"{min(1, least * comparisons):.2g} when it is corrected for {comparisons} comparisons: so "
        "few subjects decide none of them."
    )


def warned(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """`too_few` for the differences of a section, as its last sentence."""
    told = too_few(max(each["subjects"] for each in found), len(found)) if found else ""
    return [told] if told else []


def higher(first: str, second: str, found: Mapping[str, Any], what: str = "identity") -> str:
    """Which of two has more of something, if that is decided.

    Args:
        found: of first minus second, with mean, low, high and p_holm.
    """
    number = f"{ends(found)}, p (Holm) {p_value(found['p_holm'])}"
    way = decided(found)
    if way == 0:
        return f"{first} and {second} cannot be told apart in {what}: {number}."
    return f"{first} has {'more' if way > 0 else 'less'} {what} than {second}: {number}."


def against(what: str, found: Mapping[str, Any], value: float, words: str) -> str:
    """Whether a quantity is above or below a value that the paper or chance gives.

    Args:
        found: with mean, low and high; a difference against 0 that was tested has p_holm, too.
    """
    sides = {1: "above", -1: "below", 0: "not told apart from"}
    if "p_holm" not in found:
        return f"{what} is {sides[side(found, value)]} {words}: {ends(found)}."
    number = f"{ends(found)}, p (Holm) {p_value(found['p_holm'])}"
    return f"{what} is {sides[decided(found)]} {words}: {number}."
