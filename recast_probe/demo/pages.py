"""Figures and the report of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from recast_probe import figures
from recast_probe.demo.arms import ARMS, Case, Run
from recast_probe.demo.measure import BLOCKS, Measurements, by_reference
from recast_probe.probe import Probe
from recast_probe.report import Number, Section, write_report
from recast_probe.studies.resampling import bootstrap

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
    mask = probe.reference_mask(example.sample.mask, example.sample.image)
    score = profile.reference_map(profile.mean_score(blocks=BLOCKS))[0]
    first_of_sample = {case.sample.subject: i for i, case in reversed(list(enumerate(cases)))}
    scores = {arm: found.scores[arm]["identity"] for arm in ARMS}
    setting = f"{len(cases)} runs, {len(runs['full'][0].reference_tokens_per_step)} steps"
    drawn = {
        "importance": figures.importance_over_reference(profile, example.sample.image),
        "lorenz": figures.lorenz(
            {name: found.skews[i] for name, i in sorted(first_of_sample.items())}
        ),
        "entropy": figures.entropy_curves(found.entropies[0]),
        "overlap": figures.overlap(found.overlaps[0], score, mask, example.sample.image),
        "stability": figures.stability_matrix(found.all_rankings),
        "identity": figures.identity_by_arm(
            {TITLES[arm]: scores[arm] for arm in ARMS},
            {
                TITLES[arm]: bootstrap(
                    by_reference(found, found.scores[arm]["identity"]), seed=seed
                )
                for arm in ARMS
            },
            metric="Masked MobileNetV2 cosine to the reference",
            selection=setting,
            note=f"Large points: mean over {len(cases)} runs with its 95% interval. Each faint "
            "line is one prompt of one reference.",
        ),
        "budget": figures.budget_curve(
            {TITLES[arm]: runs[arm][0].reference_tokens_per_step for arm in ARMS},
            profile.layout.reference_tokens,
            selection=example.prompt,
        ),
    }
    for subject in first_of_sample:
        chosen = [i for i, case in enumerate(cases) if case.sample.subject == subject]
        drawn[f"grid-{cases[chosen[0]].sample.name}"] = figures.image_grid(
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
    rows = [
        {
            "arm": TITLES[arm],
            "identity to the reference": interval_text(arms[arm]["identity"]),
            "identity to the full run": interval_text(arms[arm]["identity_to_full"]),
            "colour": interval_text(arms[arm]["colour"]),
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
            label="Attention on the top quarter",
            explanation="Share of generation-to-reference attention that the most attended 25 % "
            "of reference tokens hold. An even spread would be 25 %.",
        ),
        "auroc": Number(
            value=f"{summary['overlap']['auroc']:.2f}",
            label="Foreground AUROC",
            explanation="Chance that a token on the subject gets more attention than one beside "
            "it. Masks shifted at random give "
            f"{summary['overlap']['auroc_null']:.2f}.",
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
            "step, chosen by lot, so both arms process the same number of tokens. None never sees "
            "the reference.",
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
            "The control moves the mask around the image: a map that only prefers the middle "
            "would do as well there.",
            figures=[images["overlap"]],
        ),
        Section(
            "Do prompts agree?",
            "Rankings of the same reference under different prompts stand beside each other. "
            f"Within a reference the mean Spearman correlation is "
            f"{_number(summary['stability']['spearman'])}, over all pairs "
            f"{_number(summary['stability']['spearman_all_pairs'])}.",
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


def interval_text(interval: Mapping[str, Any]) -> str:
    """ "0.812 [0.790, 0.835]", without brackets where there is no interval."""
    text = f"{interval['mean']:.3f}"
    if interval["low"] is None:
        return text
    return f"{text} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _compared(differences: Mapping[str, Mapping[str, Any]]) -> str:
    """Paired differences in words."""
    parts = [
        f"{name.replace('recast_minus_', 'ReCAST minus ')} {interval_text(found)} "
        f"(p = {_number(found['p_value'])})"
        for name, found in differences.items()
    ]
    return (
        "Pair by pair, the same prompt, seed and noise: identity of "
        + "; ".join(parts)
        + ". Intervals resample references and then prompts; p-values flip the signs of whole "
        "references, so few references cannot give a small one."
    )


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.2f}"
