"""Studies on pictures of one's own, whose units have one label more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from analyses import amortisation, concentration, faithfulness, qualitative, sinks, stability
from recast_probe.datasets import load_benchmark
from recast_probe.errors import InputError
from recast_probe.recipes.sinks import halves
from recast_probe.testing import tiny

SMALL = ("--model", "tiny:flux-kontext", "--masks", "none", "--steps", "2")


HEAD = "image,prompt,category,mask,target,target_mask\n"


def square(path: Path, start: int) -> None:
    """A mask with a square in it."""
    mask = np.zeros((64, 64), np.uint8)
    mask[start : start + 32, start : start + 32] = 255
    Image.fromarray(mask).save(path)


def table_of(folder: Path, count: int, prompts: tuple[str, ...] = ("in snow", "on sand")) -> Path:
    """References with these prompts, masks and true answers; a table of them."""
    rows = []
    for number in range(count):
        square(folder / f"m{number}.png", 16)
        tiny.tiny_image(64, 64, seed=number).save(folder / f"{number}.png")
        tiny.tiny_image(64, 64, seed=9 + number).save(folder / f"t{number}.png")
        files = f"m{number}.png,t{number}.png,m{number}.png"
        rows += [f"{number}.png,{prompt},edit,{files}" for prompt in prompts]
    (folder / "table.csv").write_text(HEAD + "\n".join(rows))
    return folder / "table.csv"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two references with two prompts each."""
    return table_of(tmp_path_factory.mktemp("pictures"), 2)


def test_images_of_own_cases_are_shown(pictures, tmp_path):
    shown = qualitative.main([*SMALL, "--images", str(pictures), "--out", str(tmp_path)])["table"]
    assert {row["category"] for row in shown} == {"edit"}
    assert {row["prompt"] for row in shown} <= {"in snow", "on sand"}
    assert (tmp_path / "qualitative.png").stat().st_size > 0


def test_rankings_of_own_cases_are_judged(pictures, tmp_path):
    asked = ["--subjects", "5", "--images", str(pictures), "--out", str(tmp_path)]
    small = [*SMALL, "--quick", *asked]
    found = faithfulness.main(small)
    controls = pd.read_parquet(tmp_path / "controls.parquet")
    assert "files" in controls
    # the label is no check
    checks = [row["check"] for row in found["controls"]]
    assert "files" not in checks
    assert set(checks) == set(controls.columns) - {"subject", "prompt", "category", "files", "arm"}
    held = json.loads((tmp_path / "summary.json").read_text())
    # what there was, not the 5 subjects that were asked for
    assert (held["subjects"], held["prompts"]) == (2, 1)
    assert json.loads((tmp_path / "runs.json").read_text())["provenance"]["subjects"] == 2
    assert "2 subjects, 2 cases (edit)" in (tmp_path / "page.md").read_text()


def test_agreement_is_of_the_kinds_of_edits_that_the_table_has_now(tmp_path):
    table = table_of(tmp_path, 1, ("in snow", "on sand", "at night"))
    first = [*SMALL, "--images", str(table), "--prompts", "3", "--out", str(tmp_path / "out")]

    def with_kinds(*kinds: str) -> dict:
        lines = table.read_text().splitlines()
        for row, kind in enumerate(kinds, start=1):
            cells = lines[row].split(",")
            lines[row] = ",".join([*cells[:2], kind, *cells[3:]])
        table.write_text("\n".join(lines))
        stability.main(first)
        return pd.read_parquet(tmp_path / "out" / "references.parquet").iloc[0].to_dict()

    one = with_kinds("a", "a", "b")
    other = with_kinds("a", "b", "b")
    assert other["spearman"] == one["spearman"]
    assert other["spearman_same_category"] != one["spearman_same_category"]


def test_a_reused_ranking_is_that_of_the_first_prompt_that_the_table_has_now(tmp_path):
    table = table_of(tmp_path, 2)

    def identity(out: str) -> pd.Series:
        amortisation.main([*SMALL, "--images", str(table), "--out", str(tmp_path / out)])
        runs = pd.read_parquet(tmp_path / out / "runs.parquet")
        runs = runs[runs["arm"] == "reused ranking"]
        return runs.set_index(["subject", "prompt"])["target_error"]

    before = identity("out")
    table.write_text(table.read_text().replace("0.png,in snow", "0.png,as a neon sign"))
    after = identity("out")
    pd.testing.assert_series_equal(after, identity("anew"), check_exact=True)
    unchanged = ("1.png", "1: on sand")
    assert after[unchanged] == before[unchanged]


def test_a_ranking_for_one_prompt_is_not_reused(tmp_path):
    table = table_of(tmp_path, 2, ("in snow",))
    with pytest.raises(InputError, match="2 references has one prompt"):
        amortisation.main([*SMALL, "--images", str(table), "--out", str(tmp_path / "out")])


def test_maps_are_held_against_the_masks_that_there_are_now(tmp_path):
    table = table_of(tmp_path, 2, ("in snow",))
    asked = [*SMALL, "--images", str(table), "--out", str(tmp_path / "out")]
    concentration.main(asked)
    square(tmp_path / "m1.png", 8)
    with pytest.raises(InputError, match=r"other_masks.1\.png"):
        concentration.main(asked)


def test_sinks_are_found_and_tested_on_different_subjects(tmp_path):
    cases = load_benchmark("folder", table_of(tmp_path, 5))
    finding, testing = halves(cases)
    assert [case.subject for case in finding] == ["0.png", "1.png"]
    assert len(testing) == 6
    assert not {case.subject for case in finding} & {case.subject for case in testing}
    with pytest.raises(InputError, match="there are 2"):
        halves(cases[:4])


def test_sinks_say_what_was_scored_and_refuse_other_settings_first(tmp_path, monkeypatch):
    table = table_of(tmp_path, 4, ("in snow",))
    lines = table.read_text().splitlines()
    table.write_text("\n".join(",".join(line.split(",")[:2]) for line in lines))
    asked = [*SMALL, "--images", str(table), "--out", str(tmp_path / "out")]
    found = sinks.main([*asked, "--nearest", "2"])
    assert all(row["scored on"] == "whole images (no masks)" for row in found["sinks"])
    assert "scored on whole images" in (tmp_path / "out" / "page.md").read_text()
    held = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (held["subjects"], held["nearest"]) == (4, 2)
    monkeypatch.setattr("recast_probe.probe.Probe.generate", None)  # nothing runs
    with pytest.raises(InputError, match="nearest was 2, now 1"):
        sinks.main([*asked, "--nearest", "1"])
