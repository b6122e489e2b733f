"""Figures and the report of the demo."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from recast_probe import figures
from recast_probe.demo.arms import ARMS, Case, Run
from recast_probe.demo.measure import Measurements, mean_of
from recast_probe.diagnostics.intervals import interval_text
from recast_probe.diagnostics.skew import OF_BLOCKS, OF_MEAN_SCORE, top_words
from recast_probe.probe import Probe
from recast_probe.report import Number, Section, write_report
from recast_probe.studies.reference_gain import UNDEFINED

TITLES = {"full": "full", "recast": "ReCAST", "random": "random", "none": "none"}


def draw(
    probe: Probe,
    cases: Sequence[Case],
    runs: Mapping[str, Sequence[Run]],
    found: Measurements,
    folder: Path,
    seed: int,
) -> dict[str, Path]:
    """Every figure as PNG and PDF in `folder`; returns the PNG paths by name."""
    example = cases[0]
    profile = runs["full"][0].profile
    assert profile is not None
    first_of_sample = {case.sample.subject: i for i, case in reversed(list(enumerate(cases)))}
    scores = {arm: found.scores[arm]["identity"] for arm in ARMS}
    setting = f"{len(cases)} runs, {len(runs['full'][0].values['reference_tokens_per_step'])} steps"
    drawn = {
        "importance": figures.plot_importance(profile, example.sample.image),
        "lorenz": figures.plot_skew(
            {name: found.skews[i] for name, i in sorted(first_of_sample.items())}
        ),
        "entropy": figures.plot_entropy(found.entropies[0]),
        "overlap": figures.plot_overlap(found.overlaps[0], example.sample.image),
        "stability": figures.plot_stability(found.agreement.matrix),
        "identity": figures.plot_arms(
            {TITLES[arm]: scores[arm] for arm in ARMS},
            {TITLES[arm]: mean_of(found, "identity", arm) for arm in ARMS},
            metric="Masked MobileNetV2 cosine to the reference",
            selection=setting,
            note=f"Large points: mean over {len(cases)} runs with its 95% interval. Each faint "
            "line is one prompt of one reference.",
        ),
        "budget": figures.plot_budgets(
            {TITLES[arm]: runs[arm][0].values["reference_tokens_per_step"] for arm in ARMS},
            profile.layout.reference_tokens,
            selection=example.prompt,
        ),
    }
    for subject in first_of_sample:
        chosen = [i for i, case in enumerate(cases) if case.sample.subject == subject]
        drawn[f"grid-{cases[chosen[0]].sample.name}"] = figures.plot_images(
            [
                {"reference": cases[i].sample.image}
                | {TITLES[arm]: runs[arm][i].image for arm in ARMS}
                for i in chosen
            ],
            [cases[i].prompt for i in chosen],
            selection="same seed and noise in every row",
        )
    paths = {}
    for name, figure in drawn.items():
        paths[name] = figures.save_figure(figure, folder / name)[0]
        plt.close(figure)
    return paths


def write_page(
    path: Path,
    summary: Mapping[str, Any],
    cases: Sequence[Case],
    images: Mapping[str, Path],
    provenance: Mapping[str, Any],
) -> Path:
    """The self-contained report."""
    arms = summary["arms"]
    skews, where = summary["skew"], summary["overlap"]
    top_25 = OF_MEAN_SCORE.format(top=top_words(skews["tokens"]))
    rows = [
        {
            "arm": TITLES[arm],
            "identity to the reference": words(arms[arm]["identity"]),
            "of what the reference adds": _gain(summary["reference_gain"], arm),
            # of the full run with itself there is nothing to estimate
            "identity to the full run": "1"
            if arm == "full"
            else words(arms[arm]["identity_to_full"]),
            "colour": words(arms[arm]["colour"]),
            "reference tokens per step": f"{arms[arm]['mean_budget']:.1f}",
            "seconds per image": f"{arms[arm]['seconds_per_image']:.2f}",
        }
        for arm in ARMS
    ]
    grids = [images[name] for name in images if name.startswith("grid-")]
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
            figures=[images["identity"], images["budget"]],
            table=rows,
        ),
        Section(
            "Where the generation looks",
            "The score of a reference token is the attention that generation tokens pay to it on "
            "average (Eq. 2).",
            figures=[images["importance"], images["lorenz"]],
        ),
        Section("How focused it is", figures=[images["entropy"]]),
        Section(
            "Is it the subject?",
            _position(where),
            figures=[images["overlap"]],
        ),
        Section(
            "Do prompts agree?",
            _agreement(summary["stability"]),
            figures=[images["stability"]],
        ),
    ]
    names = ", ".join(dict.fromkeys(case.sample.subject for case in cases))
    return write_report(
        path,
        title="How this model uses its reference image",
        subtitle=f"{summary['model']}: {names}; {len(cases)} runs in each of {len(ARMS)} arms",
        summary=cards,
        sections=sections,
        provenance=provenance,
    )


def words(interval: Mapping[str, Any] | None) -> str:
    """ "0.812 [0.790, 0.835, n=4]"; says so where the ends cannot be told."""
    if interval is None or interval["mean"] is None:
        return "not defined"
    low, high = (
        math.nan if interval[end] is None else float(interval[end]) for end in ("low", "high")
    )
    return interval_text(interval["mean"], low, high, interval["count"])


def _gain(gains: Mapping[str, Any], arm: str) -> str:
    """An arm's share of what the reference adds; full and none are the ends of the scale."""
    if any(each["mean"] is None for each in gains.values()):
        return UNDEFINED
    return words(gains[arm]) if arm in gains else {"full": "1", "none": "0"}[arm]


def _of_blocks(skews: Mapping[str, Any]) -> str:
    named = OF_BLOCKS.format(top=top_words(skews["tokens"]))
    return f"{named}: {skews['top25_of_blocks']['mean']:.0%}"


def _position(where: Mapping[str, Any]) -> str:
    """What the AUROC is held against."""
    parts = [
        f"AUROC against the subject's own mask {words(where['auroc_interval'])}; of a map that "
        f"only prefers the middle {words(where['auroc_center'])}; of the model's maps against the "
        f"masks of the other shipped subjects {words(where['auroc_other_masks'])}.",
    ]
    for name, against in (
        ("auroc_above_center", "the middle alone"),
        ("auroc_above_other_masks", "masks of others"),
    ):
        found = where[name]
        parts.append(f"Minus {against}: {words(found)}, p = {_number(found['p_value'])}.")
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
        f"{words(found['spearman_same_kind'])}, of two kinds "
        f"{words(found['spearman_other_kind'])}, of this mix {words(found['spearman_interval'])}. "
        "How well rankings agree is a matter of the mix of prompts."
    )


def _compared(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Paired differences in words."""
    parts = [
        f"{name.replace('recast_minus_', 'ReCAST minus ')} {words(found)} "
        f"(p = {_number(found['p_value'])})"
        for name, found in differences.items()
    ]
    count = next(iter(differences.values()))["count"]
    return (
        "Pair by pair, the same prompt, seed and noise: identity of "
        + "; ".join(parts)
        + f". Intervals are over the {count} references, whose prompts count together: bounded t "
        "for scores, Student's t or wider for differences. P-values flip the signs of whole "
        "references and take differences as symmetric about 0 where there is no effect; "
        f"{count} references cannot give one below {_least_p(count)}. An interval and a p-value "
        "rest on different assumptions, so at few references one may exclude 0 and the other not. "
        'On the scale "of what the reference adds" none counts 0 and full 1.'
    )


def _least_p(count: int) -> str:
    return f"{2 / 2**count:.2g}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2g}"
