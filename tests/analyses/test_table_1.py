"""Table 1 on the bundled model, small: whole, resumed, and paired as it says."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import table_1
from recast_probe.errors import InputError
from recast_probe.studies import comparison

SMALL = ["--quick", "--subjects", "2", "--prompts", "1", "--steps", "2"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("table_1")
    return out, table_1.main([*SMALL, "--out", str(out)])


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


def test_a_killed_analysis_resumes_to_the_same_table(whole, tmp_path, monkeypatch):
    _, found = whole
    done, run = [], comparison.Comparison.run

    def interrupted(self, case, name):
        if len(done) == 9:
            raise KeyboardInterrupt
        done.append(name)
        return run(self, case, name)

    with monkeypatch.context() as patched:
        patched.setattr(comparison.Comparison, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            table_1.main([*SMALL, "--out", str(tmp_path)])
    again = table_1.main([*SMALL, "--out", str(tmp_path)])

    def timeless(rows):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]

    assert timeless(again["table"]) == timeless(found["table"])
    assert again["order"] == found["order"]
    with pytest.raises(InputError, match="other settings: seed"):
        table_1.main([*SMALL, "--seed", "1", "--out", str(tmp_path)])
