"""An arm of your own beside the package's methods in one table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe.studies.comparison import Arm, Comparison, PlannedArm, units
from recast_probe.studies.engine import run_study
from recast_probe.studies.store import Store
from recast_probe.testing import tiny

ROW = 1


@dataclass(frozen=True, eq=False)
class Edit:
    """One prompt for one reference, as `datasets.Case` asks."""

    subject: str
    prompt: str
    reference: Image.Image
    category: str = "scene"
    seed: int = 0
    reference_mask: np.ndarray | None = None
    target: Image.Image | None = None
    target_mask: np.ndarray | None = None


def one_row(case):
    """Keep one row of tokens, whatever the case."""
    return [rp.Keep(range(4 * ROW, 4 * ROW + 4), start=1)]


@pytest.fixture
def table(probe, tmp_path):
    arms = {
        "full": Arm("full"),
        "recast": Arm("recast", 4, blocks="all"),
        "one row": PlannedArm({"method": "one row", "row": ROW}, one_row),
        "given": Arm("mine", given=(rp.Keep(range(4 * ROW, 4 * ROW + 4), start=1),)),
    }
    cases = [
        Edit("noise", "a red fox", tiny.tiny_image()),
        Edit("noise", "snow", tiny.tiny_image()),
    ]
    store = Store(tmp_path, {"model": "tiny"})
    comparison = Comparison(probe, arms, store, steps=2)
    return run_study(units(cases), list(arms), comparison, store, progress=False)


def test_it_is_a_row_of_the_table_like_any_method(table):
    assert table["arm"].value_counts().to_dict() == dict.fromkeys(
        ("full", "recast", "one row", "given"), 2
    )
    own = table[table["arm"] == "one row"]
    assert own["token_steps"].tolist() == [16 + 4] * 2
    assert np.isfinite(own[["identity", "colour_to_full"]].to_numpy(float)).all()
    full = table[table["arm"] == "full"]
    assert full["identity_to_full"].tolist() == pytest.approx([1, 1])
    assert (own["identity_to_full"] < 1 - 1e-6).all()


def test_the_same_interventions_given_directly_have_the_same_values(table):
    values = ["identity", "colour", "identity_to_full", "colour_to_full", "token_steps"]
    one, other = (
        table[table["arm"] == arm][values].to_numpy(float) for arm in ("one row", "given")
    )
    np.testing.assert_array_equal(one, other)
