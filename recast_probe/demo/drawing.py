"""Figures of the demo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from recast_probe import figures
from recast_probe.demo.arms import ARMS, Case, Run
from recast_probe.demo.measure import Measurements, mean_of
from recast_probe.figures.page_svg import PageFigure, page_figure
from recast_probe.probe import Probe

TITLES = {"full": "full", "recast": "ReCAST", "random": "random", "none": "none"}
GRID = "grid-"


def draw(
    probe: Probe,
    cases: Sequence[Case],
    runs: Mapping[str, Sequence[Run]],
    found: Measurements,
    folder: Path,
    seed: int,
) -> dict[str, PageFigure]:
    """Every figure as PNG and PDF in `folder`; returns them as the page shows them, by name."""
    example = cases[0]
    profile = runs["full"][0].profile
    assert profile is not None
    first_of_sample = {case.sample.subject: i for i, case in reversed(list(enumerate(cases)))}
    subjects = list(reversed(first_of_sample))
    scores = {arm: found.scores[arm]["identity"] for arm in ARMS}
    setting = f"{len(cases)} runs, {len(runs['full'][0].values['reference_tokens_per_step'])} steps"
    drawn = {}
    for subject in subjects:
        chosen = [i for i, case in enumerate(cases) if case.sample.subject == subject]
        drawn[f"{GRID}{cases[chosen[0]].sample.name}"] = figures.plot_images(
            [
                {"reference": cases[i].sample.image}
                | {TITLES[arm]: runs[arm][i].image for arm in ARMS}
                for i in chosen
            ],
            [cases[i].prompt for i in chosen],
            selection="same seed and noise in every row",
            title=f"What each arm generates: {subject}",
        )
    drawn |= {
        "identity": figures.plot_arms(
            {TITLES[arm]: scores[arm] for arm in ARMS},
            {TITLES[arm]: mean_of(found, "identity", arm) for arm in ARMS},
            metric="Masked MobileNetV2 cosine to the reference",
            selection=setting,
            note=f"Large points: mean over {len(cases)} runs, and a bar for its 95% interval where "
            "that can be told. Each faint line is one prompt of one reference.",
        ),
        "budget": figures.plot_budgets(
            {TITLES[arm]: runs[arm][0].values["reference_tokens_per_step"] for arm in ARMS},
            profile.layout.reference_tokens,
            selection="the same in all runs",
        ),
        "importance": figures.plot_importance(profile, example.sample.image),
        "lorenz": figures.plot_skew(
            {name: found.skews[first_of_sample[name]] for name in subjects}
        ),
        "entropy": figures.plot_entropy(found.entropies[0]),
        "overlap": figures.plot_overlap(found.overlaps[0], example.sample.image),
        "stability": figures.plot_stability(found.agreement.matrix),
    }
    shown = {}
    for name, figure in drawn.items():
        figures.save_figure(figure, folder / name)
        shown[name] = page_figure(figure)
        plt.close(figure)
    return shown
