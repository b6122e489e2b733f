"""The report of `recast-probe diagnose`: what stored profiles show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from recast_probe.diagnostics.entropy import Entropy
from recast_probe.diagnostics.overlap import Overlap
from recast_probe.diagnostics.results import Result
from recast_probe.diagnostics.skew import OF_MEAN_SCORE, Skew, top_words
from recast_probe.diagnostics.stability import Stability
from recast_probe.figures import save_figure
from recast_probe.figures.page_svg import page_figure
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.report.described import described
from recast_probe.report.page import Section, Verdict, write_report
from recast_probe.report.pictures import Picture, caption
from recast_probe.report.terms import terms

TITLES = {"importance": "Where the generation looks"}
WORDS = {
    "skew": ("Gini",),
    "entropy": ("Entropy", "Effective tokens"),
    "overlap": ("AUROC", "Average precision", "k", "Precision at k", "IoU at k", "p"),
    "stability": ("Spearman correlation", "Interval, n"),
}


def write_diagnosis(
    folder: Path,
    profile: AttentionProfile,
    found: Sequence[Result],
    drawn: Mapping[str, Figure],
) -> Path:
    """Save the figures in `folder` and write `report.html` beside them.

    Args:
        profile: the first one, which all but the agreement is of.
        found: the results of it, and the agreement where there are several.
        drawn: the figure of each result by its name, and "importance", the map.
    """
    by_name = {each.name: each for each in found}
    titles = TITLES | {each.name: each.title for each in found}
    sections = [
        Section(titles[name], figures=[_picture(name, figure, by_name, profile, folder)])
        for name, figure in drawn.items()
    ]
    cards = {
        f"{each.name}_{name}": number
        for each in found
        for name, number in each.highlighted().items()
    }
    for each in found:
        if isinstance(each, Skew):
            name = "skew_top_share_of_mean_score"
            top = OF_MEAN_SCORE.format(top=top_words(each.tokens, each.fraction))
            cards[name] = replace(cards[name], label=f"Attention on the {top}")
    return write_report(
        folder / "report.html",
        title="Attention to the reference image",
        subtitle=str(profile.provenance.get("prompt", "")),
        summary=cards,
        sections=sections,
        provenance=profile.provenance,
        verdict=_verdict(found),
        terms=terms(
            *("Reference token", "Step", "Block"),
            *(word for each in found for word in WORDS.get(each.name, ())),
        ),
        files={"diagnostics.json: every number, of each profile": "diagnostics.json"},
    )


def _picture(
    name: str,
    figure: Figure,
    found: Mapping[str, Result],
    profile: AttentionProfile,
    folder: Path,
) -> Picture:
    """With its words and its files."""
    saved = save_figure(figure, folder / name)
    shown = page_figure(figure)
    return Picture(
        shown.svg,
        alt=described(found[name]) if name in found else _map_in_words(profile),
        caption=caption(shown.note, shown.selection),
        files={path.suffix[1:].upper(): path.name for path in saved},
    )


def _map_in_words(profile: AttentionProfile) -> str:
    """Where the most attended token of a profile is."""
    score = profile.mean_score()
    token = int(np.nanargmax(score.values))
    times = float(score.values[token] / np.nanmean(score.values))
    place = ""
    if profile.layout.placed:
        row, column = (int(score[axis].values[token]) for axis in ("row", "column"))
        place = f", at row {row}, column {column}"
    return (
        f"The attention that each reference token receives. The most attended one, token {token}"
        f"{place}, gets {times:.1f} times an equal share."
    )


def _verdict(found: Sequence[Result]) -> Verdict:
    """What the first profile says, and how sure that can be."""
    answer, evidence = "", []
    for each in found:
        if isinstance(each, Skew):
            top = top_words(each.tokens, each.fraction)
            answer = (
                f"The {top} of reference tokens hold {each.top_share_of_mean_score:.0%} of the "
                f"attention; an even spread would give them {each.counted:.0%}"
            )
        elif isinstance(each, Entropy):
            first, last = (float(each.marginal[place]) for place in (0, -1))
            evidence.append(
                f"Entropy {first:.2f} bits at the first step and {last:.2f} at the last, of at "
                f"most {each.maximum:.1f}."
            )
        elif isinstance(each, Overlap):
            null = each.null.get("auroc")
            beside = f", p = {each.p_value:.2g}" if each.p_value == each.p_value else ""
            bar = "" if null is None else f" [shifted masks {null.low:.2f} to {null.high:.2f}]"
            evidence.append(f"AUROC against the mask {each.auroc:.2f}{bar}{beside}.")
        elif isinstance(each, Stability):
            evidence.append(
                f"Rankings of {each.mean_spearman.count} profiles agree with a Spearman "
                f"correlation of {each.mean_spearman}."
            )
    evidence.append("One run is an example: intervals over subjects need runs of several.")
    return Verdict(answer, " ".join(evidence))
