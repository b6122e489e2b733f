"""Which pictures are shown is decided by a rule, and Table 1's runs are enough to show them."""

from __future__ import annotations

import pandas as pd
import pytest

from analyses.qualitative import main
from recast_probe.recipes import qualitative
from tests.analyses.conftest import SMALL


def test_pictures_of_table_1(whole, tmp_path, monkeypatch, capsys):
    table, _ = whole
    monkeypatch.setattr("recast_probe.probe.Probe.generate", None)  # nothing runs again
    out = tmp_path / "made" / "here"
    shown = main([*SMALL, "--table", str(table), "--out", str(out)])["table"]
    assert "| background change " in capsys.readouterr().out
    runs = pd.read_parquet(table / "runs.parquet")
    identity = runs.pivot(index="subject", columns="arm", values="identity")
    # two cases: the lower quantile is the greater loss
    losses = [row["recast"] - row["full"] for row in shown]
    assert losses == sorted(losses)
    for row in shown:
        assert row["recast"] == pytest.approx(identity.loc[row["subject"], "recast"], abs=1e-3)
    assert (out / "qualitative.png").stat().st_size > 50_000


def test_the_rule():
    losses = {"a": -0.5, "b": 0.1, "c": -0.1, "d": 0.0, "e": -0.3}
    runs = pd.DataFrame(
        [
            {"subject": subject, "prompt": "0: p", "category": category, "arm": arm}
            | {"identity": 0.5 + (sign * loss if arm == "recast" else 0)}
            for category, sign in (("x", 1), ("y", -1))
            for subject, loss in losses.items()
            for arm in ("full", "recast")
        ]
    )
    picked = [(category, subject) for subject, _, category in qualitative.pick(runs).index]
    # 10 %, 50 % and 90 % of five in order: a e c d b, and b d c e a
    assert picked == [("x", "a"), ("x", "c"), ("x", "b"), ("y", "b"), ("y", "c"), ("y", "a")]
    shuffled = runs.sample(frac=1, random_state=1)
    again = qualitative.pick(shuffled)
    assert {category: set(part.index) for category, part in again.groupby("category")} == {
        category: set(part.index) for category, part in qualitative.pick(runs).groupby("category")
    }
