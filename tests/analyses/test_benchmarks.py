"""Analyses on photographs: a saved pipeline, a folder in a published format, found masks."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import concentration, stability, table_1
from recast_probe.errors import InputError
from tests.datasets.trees import dreambooth_tree, kontextbench_tree, picture


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return kontextbench_tree(tmp_path_factory.mktemp("kontextbench"))


def arguments(folder, data, out, *more):
    chosen = ["--model", str(folder), "--benchmark", "kontextbench", "--data", str(data)]
    return [*chosen, "--steps", "2", "--out", str(out), *more]


def test_table_1_on_photographs_without_masks(tiny_folder, data, tmp_path, capsys):
    pytest.importorskip("cv2")
    pytest.importorskip("onnxruntime")
    found = table_1.main(arguments(tiny_folder, data, tmp_path, "--prompts", "1"))
    assert "| scored on" in capsys.readouterr().out
    rows = {row["arm"]: row for row in found["table"]}
    assert "mask-oracle" in rows
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    assert len(runs) == 2 * len(rows)
    assert "target_error" not in runs
    # every arm of a case is scored alike, and says so
    alike = runs["scored_on"].str.removesuffix(", the full run's")
    assert (alike.groupby(runs["prompt"]).nunique() == 1).all()
    assert all("u2netp+grabcut" in row["scored on"] for row in rows.values())
    # a wide picture has another grid than a square one, and every arm its share of it
    steps = runs[runs["arm"] == "full"].groupby("subject")["token_steps"].first()
    assert steps["0000"] != steps["0001"]
    pruned = runs[~runs["arm"].isin(["full", "none"])]
    assert (pruned.groupby("subject")["token_steps"].nunique() == 1).all()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["benchmark"], summary["masks"]) == ("kontextbench", "u2netp+grabcut")
    assert {column for row in summary["categories"] for column in row} == {
        "arm",
        "Instruction Editing - Local: identity to the reference, for lack of a target",
        "Character Reference: identity",
    }


def test_table_1_without_masks_says_that_whole_images_were_scored(tiny_folder, data, tmp_path):
    whole = arguments(tiny_folder, data, tmp_path, "--masks", "none")
    with pytest.raises(InputError, match="'mask-oracle' ranks by the subject's mask"):
        table_1.main(whole)
    found = table_1.main([*whole, "--no-mask-oracle"])
    assert {row["scored on"] for row in found["table"]} == {"whole images (no masks)"}
    assert "mask-oracle" not in {row["arm"] for row in found["table"]}
    # all three cases, though neither subjects nor prompts were asked for
    assert len(pd.read_parquet(tmp_path / "runs.parquet")) == 3 * len(found["table"])
    with pytest.raises(InputError, match="other settings: masks"):
        table_1.main([*whole, "--no-mask-oracle", "--masks", "u2netp"])


def test_another_picture_of_the_same_name_is_run_again(tiny_folder, tmp_path):
    data, out = kontextbench_tree(tmp_path / "data"), tmp_path / "out"
    whole = arguments(tiny_folder, data, out, "--masks", "none", "--no-mask-oracle")
    table_1.main([*whole, "--subjects", "1", "--prompts", "1"])
    first = pd.read_parquet(out / "runs.parquet")
    table_1.main([*whole, "--prompts", "1"])
    more = pd.read_parquet(out / "runs.parquet")
    kept = more[more["subject"] == "0000"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, first)  # seconds too: they were not run again
    picture(data / "test/images/0000.jpg", seed=9, size=(96, 48))
    table_1.main([*whole, "--subjects", "1", "--prompts", "1"])
    other = pd.read_parquet(out / "runs.parquet")
    assert (other["files"] != first["files"]).all()
    assert (other["identity"] != first["identity"]).all()


def test_profiles_of_photographs(tiny_folder, data, tmp_path, capsys):
    whole = [tiny_folder, data]
    found = stability.main(arguments(*whole, tmp_path / "a", "--masks", "none"))
    assert "nothing to compare: 0001." in capsys.readouterr().out
    assert found["table"][0]["measure"] == "spearman"
    found = concentration.main(arguments(*whole, tmp_path / "b", "--masks", "none"))
    assert "No AUROC against the subject's mask" in capsys.readouterr().out
    assert not [row for row in found["table"] if "AUROC" in row["measure"]]


def test_a_quick_run_takes_a_part(tiny_folder, tmp_path):
    data = dreambooth_tree(tmp_path / "data")
    chosen = ["--model", str(tiny_folder), "--benchmark", "dreambooth", "--data", str(data)]
    found = concentration.main(
        [*chosen, "--quick", "--steps", "2", "--masks", "none", "--out", str(tmp_path / "out")]
    )
    assert found["table"]
    runs = pd.read_parquet(tmp_path / "out/runs.parquet")
    assert runs["category"].tolist() == ["object", "live subject", "object"]


def test_a_benchmark_that_is_not_there(tiny_folder, tmp_path):
    with pytest.raises(InputError, match="KontextBench: there is no folder"):
        table_1.main(arguments(tiny_folder, tmp_path / "nowhere", tmp_path, "--masks", "none"))
    with pytest.raises(SystemExit):
        table_1.main(["--benchmark", "imagenet"])
