"""Metrics by name in an analysis: a column each, resumed, and never mixed with others."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analyses import schedules, stability
from recast_probe import metrics
from recast_probe.commands.common import open_probe
from recast_probe.errors import InputError
from recast_probe.metrics import ImageMetric
from recast_probe.pocket.bench import pocket_bench
from recast_probe.recipes.arguments import parse
from recast_probe.recipes.comparing import one_table, summarise
from recast_probe.recipes.recipe import Recipe
from recast_probe.studies.comparison import Arm
from recast_probe.studies.extra_metrics import complete, extra_columns, measured
from recast_probe.studies.scored_area import scored_area
from tests import tiny_metrics

SMALL = ["--quick", "--subjects", "2", "--prompts", "1", "--steps", "2"]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """`--metrics` with tiny weights, one of every kind."""
    folder = tmp_path_factory.mktemp("weights")
    dino, clip = tiny_metrics.save_dinov2(folder / "a"), tiny_metrics.save_clip(folder / "b")
    return f"dinov2={dino},dinov2-whole={dino},clip-t={clip},ssim,kid"


def run_two_arms(chosen, probe) -> dict:
    arms = {"full": Arm("full"), "random": Arm("random", 32)}
    return one_table(chosen, probe, arms, "full", "Two arms", "", {"random": "Random tokens"})


def two_arms(arguments: list[str]) -> dict:
    chosen = parse("two_arms", Recipe(run_two_arms, metrics=True), arguments)
    return run_two_arms(chosen, open_probe(chosen.model, chosen.dtype, chosen.device))


@pytest.fixture(scope="module")
def whole(named, tmp_path_factory):
    out = tmp_path_factory.mktemp("two_arms")
    arguments = [*SMALL, "--metrics", named, "--out", str(out)]
    return out, arguments, two_arms(arguments)


def test_every_metric_has_a_column(whole, named):
    out, _, found = whole
    rows = {row["arm"]: row for row in found["table"]}
    runs = pd.read_parquet(out / "runs.parquet")
    assert extra_columns(runs) == ["dinov2", "dinov2-whole", "clip-t", "ssim_to_full"]
    assert rows["full"]["ssim to full"].startswith("1.000")
    assert not rows["random"]["ssim to full"].startswith("1.000")
    assert rows["full"]["kid to full"] == "-"
    settings = json.loads((out / "runs" / "study.json").read_text())
    assert [each["metric"] for each in settings["metrics"]] == [
        *("dinov2", "dinov2-whole", "clip-t", "ssim")
    ]

    # the numbers again, from the stored pictures
    cases = pocket_bench(2, 1, seed=0)
    scorers = {each.name: each for each in metrics.metrics_of(named)}
    pictures: dict[str, list[Image.Image]] = {}
    for arm in ("full", "random"):
        pictures[arm] = []
        for case in cases:
            record = next(
                path
                for path in (out / "runs").glob("*.json")
                if path.name != "study.json"
                and (key := json.loads(path.read_text())["key"])["arm"] == arm
                and key["subject"] == case.subject
            )
            pictures[arm].append(Image.open(record.with_suffix(".png")).convert("RGB"))
    pruned = runs[runs["arm"] == "random"].set_index("subject")
    for case, image, full in zip(cases, pictures["random"], pictures["full"], strict=True):
        row, masks = pruned.loc[case.subject], (case.target_mask, case.reference_mask)
        wanted = {
            "dinov2": scorers["dinov2"].score(image, masks[0], case.reference, masks[1]),
            "dinov2-whole": scorers["dinov2"].score(image, None, case.reference, None),
            "ssim_to_full": scorers["ssim"].score(image, masks[0], full, masks[0]),
        }
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    distance = scorers["kid"].distance(pictures["random"], pictures["full"])
    assert rows["random"]["kid to full"] == f"{distance:.4g}"


def test_it_resumes_and_refuses_other_metrics(whole):
    out, arguments, found = whole
    assert two_arms(arguments) == found
    other = [*SMALL, "--metrics", "ssim", "--out", str(out)]
    with pytest.raises(InputError, match="other settings: metrics"):
        two_arms(other)


def test_unknown_metrics_are_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match="no metric 'dino'"):
        schedules.main([*SMALL, "--metrics", "dino", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_scripts_without_arms_do_not_take_the_option(tmp_path, capsys):
    with pytest.raises(SystemExit):
        stability.main([*SMALL, "--metrics", "ssim", "--out", str(tmp_path)])
    assert "unrecognized arguments: --metrics" in capsys.readouterr().err


def table() -> pd.DataFrame:
    """Two arms on three subjects; the face of one is lost in one arm."""
    rows = []
    for arm, faces in (("full", [0.5, 0.6, 0.7]), ("pruned", [0.3, None, 0.5])):
        for subject, value in enumerate(faces):
            values = dict.fromkeys(
                ("identity", "identity_to_full", "colour", "colour_to_full"), 0.5
            )
            labels = {"subject": str(subject), "prompt": "0", "arm": arm}
            cost = {"token_steps": 4, "seconds": 1.0}
            rows.append(labels | values | cost | {"auraface": value})
    return pd.DataFrame(rows)


def test_pairs_without_a_value_are_left_out_and_counted():
    found = {row["arm"]: row for row in summarise(table(), "full", 0)}
    assert found["full"]["auraface (2 of 3 cases)"].startswith("0.600")
    assert found["pruned"]["auraface (2 of 3 cases)"].startswith("0.400")
    none = table().assign(auraface=None)
    assert len(complete(none, "auraface")) == 0
    assert summarise(none, "full", 0)[0]["auraface (0 of 3 cases)"] == "-"
    assert extra_columns(table()) == ["auraface"]


def test_aligned_metrics_are_held_against_the_full_run():
    class Sees(ImageMetric):
        name = "sees"
        aligned = False

        def score(self, image, mask, reference, reference_mask):
            return float(np.asarray(reference).mean())

        def provenance(self):
            return {"metric": self.name}

    (case,) = pocket_bench(1, 1, seed=0)
    full = Image.new("RGB", case.target.size, (9, 9, 9))
    plain, aligned = Sees(), Sees()
    aligned.aligned = True
    area = scored_area(case, case.target, full, None)
    found = measured([plain, aligned], case, case.target, full, area)
    assert found["sees_to_full"] == 9
    assert found["sees"] == pytest.approx(np.asarray(case.reference).mean())
    assert not math.isclose(found["sees"], 9)
