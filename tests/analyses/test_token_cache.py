"""ToCa with and without pruning on the bundled model, small."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import token_cache


def test_both_together(tmp_path, capsys):
    small = ("--quick", "--subjects", "1", "--prompts", "1", "--steps", "5")
    found = token_cache.main([*small, "--out", str(tmp_path)])
    assert "| recast + ToCa " in capsys.readouterr().out
    rows = {row["arm"]: row for row in found["table"]}
    assert list(rows) == ["full", "recast", "ToCa", "recast + ToCa"]
    assert rows["recast"]["token-steps"] == rows["recast + ToCa"]["token-steps"]
    assert rows["ToCa"]["token-steps"] == rows["full"]["token-steps"]
    for name in ("speed-up by FLOP", "the same for FLUX.1 Kontext dev"):
        speed = {arm: row[name] for arm, row in rows.items()}
        assert 1 == speed["full"] < speed["recast"] < speed["recast + ToCa"]
        assert speed["ToCa"] < speed["recast + ToCa"] < speed["recast"] * speed["ToCa"] * 1.2
    runs = pd.read_parquet(tmp_path / "runs.parquet").set_index("arm")
    # steps 0 to 2 are computed whole, and most of the others' tokens are not
    assert runs.loc["full", "computed_share"] == 1
    assert 0.6 < runs.loc["ToCa", "computed_share"] < 0.7
    measured = json.loads((tmp_path / "summary.json").read_text())["measured"]
    assert measured["token_cache_speed_up"] == pytest.approx(
        rows["recast + ToCa"]["speed-up by FLOP"], abs=1e-3
    )
    assert (tmp_path / "token_cache.png").stat().st_size > 0
