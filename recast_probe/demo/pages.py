"""The report of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from recast_probe.demo.arms import ARMS, Case
from recast_probe.demo.drawing import GRID, TITLES
from recast_probe.demo.measure import Measurements
from recast_probe.demo.verdict import verdict
from recast_probe.demo.words import in_words, least_p, number_words
from recast_probe.diagnostics.skew import OF_BLOCKS, OF_MEAN_SCORE, top_words
from recast_probe.figures.page_svg import PageFigure
from recast_probe.report import Number, Picture, Section, write_report
from recast_probe.report.described import described
from recast_probe.report.pictures import caption
from recast_probe.report.terms import TERMS
from recast_probe.studies.reference_gain import UNDEFINED


def write_page(
    path: Path,
    summary: Mapping[str, Any],
    cases: Sequence[Case],
    found: Measurements,
    drawn: Mapping[str, PageFigure],
    provenance: Mapping[str, Any],
) -> Path:
    """The self-contained report."""
    arms = summary["arms"]
    skews, where = summary["skew"], summary["overlap"]
    top_25 = OF_MEAN_SCORE.format(top=top_words(skews["tokens"]))
    rows = [
        {
            "arm": TITLES[arm],
            "identity to the reference": in_words(arms[arm]["identity"]),
            "of what the reference adds": _gain(summary["reference_gain"], arm),
            # of the full run with itself there is nothing to estimate
            "identity to the full run": "1"
            if arm == "full"
            else in_words(arms[arm]["identity_to_full"]),
            "colour": in_words(arms[arm]["colour"]),
            "reference tokens per step": f"{arms[arm]['mean_budget']:.1f}",
            "seconds per image": f"{arms[arm]['seconds_per_image']:.2f}",
        }
        for arm in ARMS
    ]
    alt = _alternatives(summary, cases, found)
    names = {case.sample.name: case.sample.subject for case in cases}
    example = cases[0]

    def picture(name: str, title: str = "") -> Picture:
        """With its words and its files."""
        shown = drawn[name]
        files = {kind.upper(): f"figures/{name}.{kind}" for kind in ("png", "pdf")}
        words = caption(shown.note, shown.selection)
        return Picture(shown.svg, alt[name], title, words, files)

    grids = [
        picture(f"{GRID}{name}", title=subject[:1].upper() + subject[1:])
        for name, subject in names.items()
    ]
    one_run = f"One run: {example.prompt}"
    tokens = round(2 ** summary["entropy"]["maximum"])
    cards = {
        "top25": Number(
            value=f"{summary['skew']['top25']:.0%}",
            label=f"Attention on the {top_25}",
            explanation="Share of generation-to-reference attention, averaged over blocks, that "
            f"the most attended tokens hold; {_of_blocks(skews)}. An even spread would be "
            f"{skews['top_tokens'] / skews['tokens']:.0%}.",
        ),
        "auroc": Number(
            value=f"{summary['overlap']['auroc']:.2f}",
            label="Foreground AUROC",
            explanation="Chance that a token on the subject gets more attention than one beside "
            f"it. A map that only prefers the middle gets {where['auroc_center']['mean']:.2f}, "
            f"masks of other subjects {where['auroc_other_masks']['mean']:.2f}.",
        ),
        "entropy": Number(
            value=f"{summary['entropy']['first']:.2f} → {summary['entropy']['last']:.2f}",
            label="Entropy, first to last step",
            explanation=f"Bits, of at most {summary['entropy']['maximum']:.1f} for "
            f"{tokens} reference tokens.",
        ),
        "identity": Number(
            value=" / ".join(f"{arms[arm]['identity']['mean']:.2f}" for arm in ("recast", "full")),
            label="Identity, ReCAST / full",
            explanation="Masked MobileNetV2 cosine to the reference's subject; random tokens keep "
            f"{arms['random']['identity']['mean']:.2f}, no reference "
            f"{arms['none']['identity']['mean']:.2f}.",
        ),
    }
    sections = [
        Section(
            "What the arms generate",
            "Every row shares prompt, seed and initial noise; only the reference tokens differ. "
            "ReCAST profiles step 0 with all reference tokens, ranks them by the attention they "
            "got, and keeps the best from step 1 on, few at first and more later (Eq. 4, scaled "
            "to this model). Random keeps step 0 in full and then exactly as many tokens at each "
            "step, chosen at random, so both arms process the same number of tokens. None never "
            "sees the reference.",
            figures=grids,
        ),
        Section(
            "How much of the subject each arm keeps",
            "Scores compare the subject's place in the output with the subject in the reference, "
            "both cut out with their masks.\n\n"
            f"{_compared(summary['identity_difference'])}",
            figures=[picture("identity"), picture("budget", "Reference tokens kept at each step")],
            table=rows,
        ),
        Section(
            "Where the generation looks",
            "The score of a reference token is the attention that generation tokens pay to it on "
            "average (Eq. 2). The maps are those of one run, the curves those of the first prompt "
            "of each subject.",
            figures=[
                picture("importance", one_run),
                picture("lorenz", "How much attention the top tokens hold"),
            ],
        ),
        Section("How widely it spreads", figures=[picture("entropy", one_run)]),
        Section(
            "Is it the subject?",
            _position(where),
            figures=[picture("overlap", one_run)],
        ),
        Section(
            "Do prompts agree?",
            _agreement(summary["stability"]),
            figures=[picture("stability")],
        ),
    ]
    return write_report(
        path,
        title="How this model uses its reference image",
        subtitle=f"{summary['model']}: {', '.join(names.values())}; {len(cases)} runs in each of "
        f"{len(ARMS)} arms",
        summary=cards,
        sections=sections,
        provenance=provenance,
        verdict=verdict(summary),
        terms=TERMS,
        files={
            "summary.json: every number of this page, with its interval": "summary.json",
            "runs: every image, its scores, and the attention profiles": "runs/",
            "figures: as PNG and PDF": "figures/",
        },
    )


def _gain(gains: Mapping[str, Any], arm: str) -> str:
    """An arm's share of what the reference adds; full and none are the ends of the scale."""
    if any(each["mean"] is None for each in gains.values()):
        return UNDEFINED
    return in_words(gains[arm]) if arm in gains else {"full": "1", "none": "0"}[arm]


def _of_blocks(skews: Mapping[str, Any]) -> str:
    named = OF_BLOCKS.format(top=top_words(skews["tokens"]))
    return f"{named}: {skews['top25_of_blocks']['mean']:.0%}"


def _position(where: Mapping[str, Any]) -> str:
    """What the AUROC is held against."""
    parts = [
        f"AUROC against the subject's own mask {in_words(where['auroc_interval'])}; of a map "
        f"that only prefers the middle {in_words(where['auroc_center'])}; of the model's maps "
        f"against the masks of the other shipped subjects {in_words(where['auroc_other_masks'])}.",
    ]
    for name, against in (
        ("auroc_above_center", "the middle alone"),
        ("auroc_above_other_masks", "masks of others"),
    ):
        found = where[name]
        parts.append(f"Minus {against}: {in_words(found)}, p = {number_words(found['p_value'])}.")
    return (
        " ".join(parts) + f" Verdict: {where['verdict']}.\n\n"
        "The grey control in the figure moves the mask around the image. It keeps the mask's shape "
        "and size and loses its position: where subjects lie near the middle, a map that only "
        f"prefers the middle beats it too, so its {where['auroc_null']:.2f} is no bar to pass."
    )


def _agreement(found: Mapping[str, Any]) -> str:
    """Agreement within one kind of edit and between two."""
    *arms, paint = found["kinds"]
    return (
        "Rankings of step 0, the step that ReCAST ranks by, stand beside each other. The prompts "
        f"are of {len(arms) + 1} kinds: those of the arms want the subject {' or '.join(arms)}, "
        f"two more a reference want {paint}. Mean Spearman correlation within a reference: prompts "
        "of one kind "
        f"{in_words(found['spearman_same_kind'])}, of two kinds "
        f"{in_words(found['spearman_other_kind'])}, of this mix "
        f"{in_words(found['spearman_interval'])}. "
        "How well rankings agree is a matter of the mix of prompts."
    )


def _compared(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Paired differences in words."""
    parts = [
        f"{name.replace('recast_minus_', 'ReCAST minus ')} {in_words(found)} "
        f"(p = {number_words(found['p_value'])})"
        for name, found in differences.items()
    ]
    count = next(iter(differences.values()))["count"]
    return (
        "Pair by pair, the same prompt, seed and noise: identity of "
        + "; ".join(parts)
        + f". Intervals are over the {count} references, whose prompts count together: bounded t "
        "for scores, Student's t or wider for differences. P-values flip the signs of whole "
        "references and take differences as symmetric about 0 where there is no effect; "
        f"{count} references cannot give one below {least_p(count)}. An interval and a p-value "
        "rest on different assumptions, so at few references one may exclude 0 and the other not. "
        'On the scale "of what the reference adds" none counts 0 and full 1.'
    )


def _alternatives(
    summary: Mapping[str, Any], cases: Sequence[Case], found: Measurements
) -> dict[str, str]:
    """What each figure shows, in words and numbers, for who cannot see it."""
    arms = summary["arms"]
    example, agreed = cases[0], summary["stability"]

    def of_arms(cell: str) -> str:
        return ", ".join(f"{TITLES[arm]} {arms[arm][cell]['mean']:.2f}" for arm in ARMS)

    skews = {
        case.sample.subject: skew
        for case, skew in reversed(list(zip(cases, found.skews, strict=True)))
    }
    scores = {
        case.sample.name: ", ".join(
            f"{TITLES[arm]} {_mean(found, arm, case.sample.name):.2f}" for arm in ARMS
        )
        for case in cases
    }
    held = [
        f"{subject} {skew.top_share_of_mean_score:.0%} (Gini {skew.gini_of_mean_score:.2f})"
        for subject, skew in reversed(skews.items())
    ]
    tokens = ", ".join(f"{TITLES[arm]} {arms[arm]['mean_budget']:.0f}" for arm in ARMS)
    return {
        **{
            f"{GRID}{case.sample.name}": f"Pictures of the {case.sample.subject}: the reference, "
            "then what each arm generates, one row a prompt. Mean identity to the reference: "
            f"{scores[case.sample.name]}."
            for case in cases
        },
        "identity": f"Points by arm. Mean identity to the reference: {of_arms('identity')}.",
        "budget": f"Lines over the steps. Reference tokens a step, on average: {tokens}. ReCAST "
        "and random keep equally many at every step.",
        "importance": f"Maps of the attention to each reference token for “{example.prompt}”, of "
        f"every block and their mean. {described(found.overlaps[0])}",
        "lorenz": f"Lorenz curves. The {top_words(summary['skew']['tokens'])} of tokens hold: "
        f"{', '.join(held)}.",
        "entropy": f"Lines over the steps, and a map by block. {described(found.entropies[0])}",
        "overlap": f"The {example.sample.subject}'s map with its outline, agreement, and AUROC of "
        f"each block. {described(found.overlaps[0])}",
        "stability": "Matrix of rank correlations of all pairs of prompts. Mean within a "
        f"reference: one kind of prompt {in_words(agreed['spearman_same_kind'])}, two kinds "
        f"{in_words(agreed['spearman_other_kind'])}.",
    }


def _mean(found: Measurements, arm: str, reference: str) -> float:
    """Identity of an arm, over the prompts of one reference."""
    scores = zip(found.references, found.scores[arm]["identity"], strict=True)
    return float(np.mean([score for name, score in scores if name == reference]))
