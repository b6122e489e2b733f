"""Table 1 on the bundled model, small: whole, resumed, and paired as it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from analyses.table_1 import main
from recast_probe.errors import InputError
from recast_probe.recipes import table_1
from tests.analyses.conftest import SMALL


def test_every_arm_has_equal_token_steps_and_a_row(whole, capsys):
    out, found = whole
    rows = {row["arm"]: row for row in found["table"]}
    assert rows["full"]["token-steps"] == 512
    assert rows["none"]["token-steps"] == 0
    pruned = {row["token-steps"] for arm, row in rows.items() if arm not in ("full", "none")}
    assert pruned == {256 + 64}
    assert [row["claim"] for row in found["order"]] == [
        "recast above self-attention",
        "self-attention above merge",
        "merge above random",
    ]
    runs = pd.read_parquet(out / "runs.parquet")
    assert len(runs) == 2 * len(rows)
    assert runs[runs["arm"] == "full"]["identity_to_full"].min() > 0.999
    summary = json.loads((out / "summary.json").read_text())
    assert summary["table"] == found["table"]
    assert {"fingerprint", "versions", "seed", "steps", "arms"} <= set(summary)
    for name in ("runs.csv", "runs.json", "identity.png", "identity.pdf"):
        assert (out / name).stat().st_size > 0


def test_a_killed_analysis_resumes_to_the_same_table(whole, tmp_path):
    """Killed from outside, with no chance to tidy up, as soon as some runs are there."""
    _, found = whole
    command = [sys.executable, "-m", "analyses.table_1", *SMALL, "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here, for the same rounding
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    records, deadline = [], time.monotonic() + 120
    while len(records) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
        # names that begin with a dot are of files that are still written
        written = (tmp_path / "runs").glob("[!.]*.json")
        records = [path for path in written if path.stem != "study"]
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert not (tmp_path / "summary.json").exists()
    before = {path: path.stat().st_mtime_ns for path in records}
    assert 4 <= len(before) < 22
    again = main([*SMALL, "--out", str(tmp_path)])
    assert timeless(again["table"]) == timeless(found["table"])
    assert (again["order"], again["categories"]) == (found["order"], found["categories"])
    # what was whole has not been made again
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    with pytest.raises(InputError, match="other settings: seed"):
        main([*SMALL, "--seed", "1", "--out", str(tmp_path)])


def test_categories_have_tables_of_their_own(whole, capsys):
    out, found = whole
    stored = pd.read_csv(out / "categories.csv")
    assert set(stored["category"]) == {"background change"}
    assert stored["arm"].tolist() == [row["arm"] for row in found["table"]]
    runs = pd.read_parquet(out / "runs.parquet")
    wanted = runs[runs["arm"] == "recast"]["identity"].mean()
    (row,) = stored[stored["arm"] == "recast"].to_dict("records")
    assert row["mean"] == pytest.approx(wanted)
    # two subjects tell no interval, or one around the mean
    assert not row["low"] > row["mean"]
    assert not row["high"] < row["mean"]


def test_style_reference_is_judged_by_the_target():
    """A table with known values: style stays out of identity, and is the worst case here."""
    rows = [
        {"subject": f"s{s}", "prompt": f"{c}: p", "category": category, "arm": arm}
        | {"identity": 0.5, "colour": 0.25 * c, "target_error": error}
        | {"scored_against": "target" if category == "local edit" else "reference"}
        for s in range(6)
        for c, (category, added) in enumerate({"local edit": 0.01, table_1.STYLE: 0.04}.items())
        for arm, error in (("full", 0.1), ("recast", 0.1 + added + 0.0012 * s))
    ]
    table = pd.DataFrame(rows)
    found = table_1.by_category(table, seed=0)
    measures = {(row["category"], row["measure"]) for row in found.to_dict("records")}
    assert measures == {
        ("local edit", "identity"),
        ("local edit", "colour"),
        ("local edit", "target_error"),
        (table_1.STYLE, "target_error"),
        (table_1.STYLE, "colour"),
    }
    (row,) = (row for row in table_1.wide(found) if row["arm"] == "recast")
    assert row["style reference: target error"].startswith("0.143 [")
    assert row["local edit: identity to the target"].startswith("0.500")
    assert "style reference: colour" in row
    worst = table_1.style_transfer(table, seed=0)["style_transfer_above_others"]
    assert worst["mean"] == pytest.approx(0.03)
    assert worst["p_value"] == pytest.approx(2 / 2**6)
    assert table_1.style_transfer(table[table["category"] == "local edit"], seed=0) == {}
    # of pictures of one's own, not every subject has both kinds, nor every case a target
    one_kind = (table["subject"] == table["subject"].iloc[0]) & (table["category"] == "local edit")
    other = table["subject"] == table["subject"].iloc[-1]
    some = table[~one_kind].assign(target_error=table["target_error"].mask(other))
    worst = table_1.style_transfer(some, seed=0)["style_transfer_above_others"]
    assert (worst["mean"], worst["subjects"]) == (pytest.approx(0.03), 4)


def test_categories_need_prompts(tmp_path):
    wanted = ["--categories", "local edit", "style reference", "--out", str(tmp_path)]
    with pytest.raises(InputError, match="give --prompts 2"):
        main([*SMALL, *wanted])
    with pytest.raises(SystemExit):
        main([*SMALL, "--categories", "portraits"])


def timeless(rows):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
