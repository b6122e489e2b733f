"""The IP-Adapter's analysis on a tiny random model, loaded from folders as a real one would be."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import ip_adapter
from recast_probe.datasets import load_benchmark
from recast_probe.errors import InputError
from recast_probe.paper_claims.measurements import collect
from recast_probe.recipes import ip_adapter as recipe


def test_profile_prune_to_half_and_resume(adapter_folders, tmp_path, capsys):
    small = [
        *("--quick", "--steps", "2", "--out", str(tmp_path)),
        *("--model", str(adapter_folders.base), "--ip-adapter", str(adapter_folders.adapter)),
        *("--image-encoder", str(adapter_folders.image_encoder)),
    ]
    found = ip_adapter.main(small)
    assert "4 image tokens, 2 kept" in capsys.readouterr().out
    rows = {row["arm"]: row for row in found["table"]}
    assert {arm: row["token-steps"] for arm, row in rows.items()} == {
        **{"full": 8, "other picture": 8, "none": 0},
        **dict.fromkeys(("recast", "random", "reversed"), 4 + 2),
    }
    assert (rows["full"]["identity to full"], rows["full"]["error to full"]) == ("1", "0")
    runs = pd.read_parquet(tmp_path / "runs.parquet").set_index("arm")
    assert (runs.loc["full", "error_to_full"] == 0).all()
    assert (runs.loc[["recast", "other picture"], "error_to_full"] > 0).all().all()
    # recast and reversed keep disjoint halves
    errors = {arm: runs.loc[arm, "error_to_full"].to_numpy() for arm in ("recast", "reversed")}
    assert (errors["recast"] != errors["reversed"]).all()
    measured = json.loads((tmp_path / "summary.json").read_text())["measured"]
    assert 0.25 < measured["ip_adapter_top25"]["mean"] < 1
    own = runs.loc["full", ["top25", "top25_of_blocks"]]
    assert (own["top25"] <= own["top25_of_blocks"] + 1e-9).all()
    assert measured["ip_adapter_top25"]["mean"] == pytest.approx(own["top25"].mean())
    assert measured["ip_adapter_tokens"] == 4
    assert (tmp_path / "ip_adapter.png").stat().st_size > 0
    assert ip_adapter.main(small) == found


def test_each_case_comes_with_the_picture_of_another_subject():
    cases = load_benchmark("pocket", subjects=3, prompts=2)
    found = recipe.with_others(cases)
    names = list(dict.fromkeys(case.subject for case in cases))
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    assert [unit.payload[0] for unit in found] == list(cases)
    assert all(
        other.subject == following[case.subject] for case, other in (u.payload for u in found)
    )
    # with other subjects in between, these are other runs
    fewer = [case for case in cases if case.subject != names[1]]
    assert {unit.content for unit in recipe.with_others(fewer)}.isdisjoint(
        {unit.content for unit in found[:2]}
    )
    with pytest.raises(InputError, match="needs two subjects"):
        recipe.with_others(cases[:2])


def test_one_subject_alone_is_refused_before_a_folder_is_bound(tmp_path):
    asked = ["--subjects", "1", "--prompts", "1", "--steps", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(InputError, match="needs two subjects"):
        ip_adapter.main(asked)
    assert not (tmp_path / "out" / "settings.json").exists()


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match=r"needs an IP-Adapter.*--ip-adapter"):
        ip_adapter.main(["--model", "some/model", "--out", str(tmp_path)])


def test_pockets_own_adapter_gives_page_and_claim(tmp_path, capsys):
    evaluation = {
        "retrieval": {"full": 0.25, "none": 0.01},
        "swap_follows": 0.75,
        "intervals": {"full": [0.2, 0.3], "none": [0.0, 0.03], "swap": [0.7, 0.8]},
        **{"references": "middle", "subjects": 150, "steps": 28, "ip_adapter_scale": 1.0},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    asked = [
        *("--subjects", "2", "--prompts", "2", "--steps", "2", "--out", str(tmp_path / "out")),
        *("--evaluations", str(tmp_path / "evaluation.json")),
        *("--markdown", str(tmp_path / "page.md"), "--measured", str(tmp_path / "claim.json")),
    ]
    found = ip_adapter.main(asked)
    printed = capsys.readouterr().out
    assert "128 image tokens, 64 kept" in printed
    assert "Scores are of the subjects" in printed
    rows = {row["arm"]: row for row in found["table"]}
    assert {arm: row["token-steps"] for arm, row in rows.items()} == {
        **{"full": 256, "other picture": 256, "none": 0},
        **dict.fromkeys(("recast", "random", "reversed"), 128 + 64),
    }
    page = (tmp_path / "page.md").read_text()
    for part in ("25.0% [20.0%, 30.0%]", "75.0% [70.0%, 80.0%]", "4 runs of 2 steps", "own image"):
        assert part in page
    assert "--subjects 2 --prompts 2 --steps 2 --seed 0 --evaluations" in page
    assert "pocket evaluate --ip-adapter pocket --subjects 150 --json" in page
    assert "features of the subjects to the reference" in page
    measured = collect([tmp_path / "claim.json"])
    assert measured["model"] == "pocket-kontext"
    assert measured["ip_adapter_tokens"] == 128
    runs = pd.read_parquet(tmp_path / "out" / "runs.parquet").set_index("arm")
    by_arm = runs.groupby(["arm", "subject"])["identity"].mean()
    kept = by_arm["recast"].mean() / by_arm["full"].mean()
    assert measured["ip_adapter_retention"]["mean"] == pytest.approx(kept)
    # what the picture adds is said in shape and in colour, each as it is in the table
    for arm in ("none", "other picture"):
        for score, words in (("identity", "identity"), ("colour", "likeness in colour")):
            by_arm = runs.groupby(["arm", "subject"])[score].mean()
            added = (by_arm["full"] - by_arm[arm]).mean()
            assert f"{words}: {added:.3f} [" in page
    (tmp_path / "evaluation.json").write_text(json.dumps({"retrieval": {}}))
    with pytest.raises(InputError, match="An evaluation has no 'full'"):
        ip_adapter.main(asked)
