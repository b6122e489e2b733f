"""The IP-Adapter's analysis on a tiny random model, loaded from folders as a real one would be."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from analyses import ip_adapter
from recast_probe.errors import InputError


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
        **{"full": 8, "none": 0},
        **dict.fromkeys(("recast", "random", "reversed"), 4 + 2),
    }
    runs = pd.read_parquet(tmp_path / "runs.parquet").set_index("arm")
    assert (runs.loc["full", "error_to_full"] == 0).all()
    assert (runs.loc["recast", "error_to_full"] > 0).all()
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


def test_what_is_missing_is_said(tmp_path):
    for arguments in ([], ["--model", "some/model"]):
        with pytest.raises(InputError, match=r"No trained IP-Adapter ships.*--ip-adapter"):
            ip_adapter.main([*arguments, "--out", str(tmp_path)])
