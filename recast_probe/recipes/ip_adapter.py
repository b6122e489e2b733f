"""FLUX.1 with an IP-Adapter: how skewed attention to its image tokens is, and pruning to half.

The paper has 128 image tokens, of which the top 25 % take 72 % of the attention, and keeps 64. By
default this runs on Pocket's own adapter; another takes `--model` and `--ip-adapter`. An adapter's
tokens have no place in the image. Identity, colour and fidelity are of the subject where the
benchmark says where it stands in the output, else of whole images. A run that is shown the picture
of another subject tells what the picture's own subject adds from what any picture does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from recast_probe.datasets import Case
from recast_probe.diagnostics import entropy, skew
from recast_probe.diagnostics.skew import OF_BLOCKS, OF_MEAN_SCORE, top_words
from recast_probe.errors import InputError
from recast_probe.figures.style import INK, arm_colours, chart, house_style
from recast_probe.files.atomic import without_nan
from recast_probe.files.envelope import read_json
from recast_probe.interventions.methods import method
from recast_probe.metrics import IdentityScorer
from recast_probe.pocket import adapter
from recast_probe.pocket.bench import CATEGORIES
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.comparing import difference, kept_by
from recast_probe.recipes.ip_adapter_page import page_on
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
from recast_probe.studies import Outcome, Unit, compare, markdown, means, run_study
from recast_probe.studies.comparison import units
from recast_probe.studies.engine.options import end_of_shard, engine_options
from recast_probe.studies.limits import limits_of
from recast_probe.studies.resampling import bootstrap
from recast_probe.studies.tables import p_value, row_interval

OTHER = "other picture"
ARMS = ("full", "recast", "random", "reversed", OTHER, "none")
WITH_ITSELF = {"identity_to_full": "1", "error_to_full": "0"}
SEEN = ("identity", "colour")  # of the subject, that a picture may add
NEEDED = (
    "This analysis needs an IP-Adapter: give --ip-adapter (a repository, a folder, or a "
    "safetensors file in the format of XLabs), such as --model black-forest-labs/FLUX.1-dev "
    "--ip-adapter XLabs-AI/flux-ip-adapter, and --image-encoder if it was trained with another "
    "one than openai/clip-vit-large-patch14."
)
OPTIONS: dict[str, dict[str, Any]] = {
    "--ip-adapter": {
        "help": "repository, folder or safetensors file; Pocket's own for --model pocket"
    },
    "--image-encoder": {"help": "its CLIP vision model, a repository or folder"},
    "--height": {"type": int, "help": "of the images, in pixels; the pipeline's own by default"},
    "--width": {"type": int, "help": "the same"},
    "--categories": {
        "nargs": "+",
        "default": CATEGORIES[:2],
        "choices": CATEGORIES[:2],
        "help": "of PocketBench; the others are no tasks for a model without the image's pixels",
    },
    "--evaluations": {
        "type": Path,
        "nargs": "+",
        "default": [],
        "help": "for the page: what `recast-probe pocket evaluate --ip-adapter pocket --json` gave",
    },
}
DIAGNOSTICS = {
    "top25": OF_MEAN_SCORE,
    "top25_of_blocks": OF_BLOCKS,
    "entropy_first": "marginal entropy of the first step, bits",
    "entropy_last": "marginal entropy of the last step, bits",
}


def prepare(chosen: Any) -> None:
    """Take Pocket's own adapter for Pocket.

    Raises:
        InputError: another model, and no adapter.
    """
    if chosen.model == "pocket" and chosen.ip_adapter is None:
        chosen.ip_adapter = "pocket"
    if chosen.ip_adapter is None:
        raise InputError(NEEDED)


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Run what is missing, print the tables, write everything to --out."""
    sides = {name: getattr(chosen, name) for name in ("height", "width")}
    sides = {name: side for name, side in sides.items() if side is not None}
    cases = bench(chosen)
    named = with_others(cases)
    tokens = probe.layout(cases[0].reference, **sides).reference_tokens
    kept = max(1, tokens // 2)
    store = open_store(
        chosen, probe, arms=list(ARMS), kept=kept, sides=sides, categories=list(chosen.categories)
    )
    adapter_runs = Adapter(probe, kept, chosen.steps, sides)
    runs = run_study(named, list(ARMS), adapter_runs, store, **engine_options(chosen))
    end_of_shard(chosen, store)

    facts, top25 = [], {}
    for name, words in DIAGNOSTICS.items():
        whole = runs[runs["arm"] == "full"]
        groups = [g.to_numpy() for _, g in whole.groupby("subject")[name]]
        found = bootstrap(groups, within=limits_of(name))
        if name == "top25":
            top25 = found.to_dict()
        measure = words.format(top=top_words(tokens))
        facts.append({"measure": measure, "mean": str(found)})
    rows = table(runs, chosen.seed)
    part = " and ".join(sorted(runs["scored_on"].unique()))
    print(f"{tokens} image tokens, {kept} kept from step 1 on\n")
    print(markdown(facts))
    print(f"\nScores are of {part}\n\n{markdown(rows)}")
    retained = without_nan(kept_by(runs, "recast", chosen.seed))
    adds = {
        (arm, score): without_nan(difference(runs, "full", arm, chosen.seed, score))
        for arm in ("none", OTHER)
        for score in SEEN
    }
    measured = {
        "ip_adapter_tokens": tokens,
        "ip_adapter_top25": top25,
        "ip_adapter_retention": retained["retention"],
        "ip_adapter_above_none": adds["none", "identity"],
        "ip_adapter_above_other": adds[OTHER, "identity"],
        "ip_adapter_above_random": difference(
            runs, "recast", "random", chosen.seed, "identity_to_full"
        ),
    }
    summary = {"diagnostics": facts, "table": rows, "scored": part, "measured": measured}
    selection = f"{probe.name}, {kept} of {tokens} tokens, {part}"
    figures = {"ip_adapter": draw(runs, chosen.seed, selection)}
    own = chosen.ip_adapter == "pocket"
    page = page_on(
        training=read_json(adapter.folder() / "training.json") if own else None,
        evaluations=[read_json(file) for file in chosen.evaluations],
        diagnostics=facts,
        rows=rows,
        retained=retained,
        adds=adds,
        sizes=(tokens, kept, len(cases), runs["subject"].nunique(), chosen.steps),
        scored=part,
    )
    finish(chosen, store, {"runs": runs}, summary, figures, page)
    return {"diagnostics": facts, "table": rows}


def with_others(cases: Sequence[Case]) -> list[Unit]:
    """One unit a case, beside it the first case of the next subject; after the last, of the first.

    Raises:
        InputError: one subject alone.
    """
    alone = units(cases)
    firsts: dict[str, Unit] = {}
    for unit in alone:
        firsts.setdefault(unit.payload.subject, unit)
    names = list(firsts)
    if len(names) < 2:
        raise InputError(
            f"The study needs two subjects, since each is also shown the picture of another one; "
            f"there is only {names[0]!r}."
        )
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    found = []
    for unit in alone:
        other = firsts[following[unit.payload.subject]]
        content = f"{unit.content} {other.content}"
        found.append(replace(unit, payload=(unit.payload, other.payload), content=content))
    return found


class Adapter:
    """Runs the arms of a case; the full run is profiled, and the others are measured against it."""

    def __init__(self, probe: Probe, kept: int, steps: int, sides: dict[str, Any]) -> None:
        self.probe, self.kept, self.steps, self.sides = probe, kept, steps, sides

    def __call__(self, unit: Unit, arms: Sequence[str]) -> Iterator[Outcome]:
        case, other = unit.payload
        full = self.run(case, case.reference, "full", profile=True)
        for arm in arms:
            if arm == "full":
                result = full
            elif arm == OTHER:
                result = self.run(case, other.reference, "full")
            else:
                result = self.run(case, case.reference, arm)
            values = self.measure(case, result.image, full.image)
            if arm == "full":
                spread = entropy(result.profile)
                concentrated = skew(result.profile)
                values["top25"] = concentrated.top_share_of_mean_score
                values["top25_of_blocks"] = concentrated.mean_of_block_top_shares
                values["entropy_first"] = float(spread.marginal[0])
                values["entropy_last"] = float(spread.marginal[-1])
            values["token_steps"] = int(sum(result.reference_tokens_per_step))
            values["seconds"] = result.seconds
            yield Outcome(arm, values, {".png": result.image.save}, result.provenance)

    def run(self, case: Case, picture: Image.Image, named: str, profile: bool = False) -> Any:
        """A case with a picture, by a named method."""
        layout = self.probe.layout(picture, **self.sides)
        return self.probe.generate(
            picture,
            case.prompt,
            steps=self.steps,
            seed=case.seed,
            interventions=method(named, self.kept, layout, blocks="all", seed=case.seed),
            profile=profile,
            progress=False,
            **self.sides,
        )

    def measure(self, case: Case, image: Image.Image, full: Image.Image) -> dict[str, Any]:
        """Likeness to the reference and to the full run's image, where the subject is or of all.

        error_to_full: mean absolute distance of all pixels, as a fraction of the range.
        """
        error = np.abs(np.asarray(image, np.float64) - np.asarray(full, np.float64)).mean() / 255
        own, size = case.target_mask, (image.height, image.width)
        masked = case.reference_mask is not None and own is not None and own.shape == size
        scorer = IdentityScorer(masked=masked)
        likeness = scorer.score(image, own, case.reference, case.reference_mask)
        return {
            "scored_on": "the subjects" if masked else "whole images",
            "identity": likeness["mobilenet"],
            "colour": likeness["colour"],
            "identity_to_full": scorer.score(image, own, full, own)["mobilenet"],
            "error_to_full": float(error),
        }


def table(runs: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """One row an arm: scores, and fidelity to the full run against random's."""
    scores = (*SEEN, "identity_to_full", "error_to_full")
    found = {name: means(runs, name, seed=seed) for name in scores}
    # the full run is compared with itself there
    against = compare(runs[runs["arm"] != "full"], "identity_to_full", "random", seed=seed)
    steps = runs.groupby("arm")["token_steps"].mean()
    rows = []
    for arm in ARMS:
        row: dict[str, Any] = {"arm": arm, "token-steps": round(float(steps[arm]))}
        for name, each in found.items():
            words = name.replace("_", " ")
            itself = WITH_ITSELF.get(name) if arm == "full" else None
            row[words] = itself or row_interval(each.loc[arm])
        row["to full, minus random"], row["p (Holm)"] = "-", "-"
        if arm in against.index:
            other = against.loc[arm]
            row["to full, minus random"] = row_interval(other, "difference")
            row["p (Holm)"] = p_value(other["p_holm"])
        rows.append(row)
    return rows


def draw(runs: pd.DataFrame, seed: int, selection: str) -> Figure:
    """Likeness to the full run's image, arm by arm; faint points are subjects."""
    found = means(runs, "identity_to_full", seed=seed)
    subjects = runs.pivot_table(index="subject", columns="arm", values="identity_to_full")
    colours = arm_colours(ARMS)
    with house_style():
        figure = chart(
            5.6,
            3.2,
            title="What half of the image tokens keep",
            note="Faint points: subjects. Bars: mean with its 95 % interval.",
            selection=f"{selection}, {len(runs) // len(ARMS)} runs an arm",
        )
        axes = figure.subplots()
        for place, arm in enumerate(ARMS):
            points, row = subjects[arm], found.loc[arm]
            axes.plot(np.full(len(points), place), points, "o", color=colours[arm], alpha=0.3, ms=3)
            if arm != "full":  # which is compared with itself
                axes.vlines(place + 0.15, row["low"], row["high"], color=colours[arm], linewidth=3)
            axes.plot(place + 0.15, row["mean"], "o", color=colours[arm])
        axes.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        axes.set_xticks(range(len(ARMS)), ARMS)
        axes.set(ylabel="MobileNetV2 cosine to the full run")
    return figure


RECIPE = Recipe(run, {"subjects": (30, 2), "prompts": (2, 1)}, OPTIONS, prepare)
