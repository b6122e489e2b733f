"""What every result can say of itself."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr

from recast_probe import diagnostics, figures
from recast_probe.diagnostics import (
    Result,
    copy_heads,
    entropy,
    overlap,
    position_control,
    skew,
    stability,
    survey,
)
from recast_probe.diagnostics.drift import QUANTITIES, Drift
from recast_probe.errors import InputError
from recast_probe.experiments.attribution_result import Attribution
from recast_probe.testing.planted_profiles import planted

RANDOM = np.random.default_rng(0)
MASK = np.zeros((4, 4), bool)
MASK[1:3, :2] = True


def every_result() -> list[Result]:
    many = [planted(RANDOM.dirichlet(np.ones(16), size=(2, 3, 2))) for _ in range(3)]
    held = [overlap(each, MASK, other_masks=[~MASK]) for each in many]
    drift = {name: RANDOM.random((2, 3)) for name in QUANTITIES}
    effects = {
        f"{name}{end}": ("block", RANDOM.random(3))
        for name in ("effect", "distance")
        for end in ("", "_low", "_high")
    }
    return [
        skew(many[0]),
        entropy(many[0]),
        held[0],
        stability(many),
        survey(many),
        copy_heads(many[0]),
        position_control(held),
        Drift.build({(0, "conditional"): drift}, [9, 5], ["single"] * 3, "m"),
        Attribution(
            xr.Dataset(effects, {"block": range(3)}), "block", "m", ("a", "b"), None, 0.5, "cut"
        ),
    ]


FOUND = every_result()
names = pytest.mark.parametrize("result", FOUND, ids=lambda result: result.name)


@names
def test_every_number_has_words(result):
    numbers = result.numbers()
    assert len({each.name for each in numbers}) == len(numbers)
    for each in numbers:
        assert each.label
        assert each.explanation.endswith(".")
    assert result.title
    assert list(result.highlighted()) == list(result.highlights)
    assert result.summary() == {each.name: each.value for each in numbers}


@names
def test_numbers_are_json_and_a_table(result):
    stored = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert stored.pop("selection") == result.selection
    assert stored == pytest.approx(result.summary())
    table = result.to_dataframe()
    assert table["value"].to_dict() == pytest.approx(result.summary())
    assert list(table.columns) == ["value", "label", "explanation", "unit"]


@names
def test_a_dataset_holds_every_array_and_every_number(result, tmp_path):
    found = result.to_dataset()
    assert found.attrs == {"result": result.name, "selection": result.selection}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, xr.DataArray):
            xr.testing.assert_identical(found[field.name].variable, value.variable)
    for each in result.numbers():
        if found[each.name].ndim == 0:
            assert float(found[each.name]) == pytest.approx(each.value)
            assert found[each.name].attrs["long_name"] == each.label
    found.to_netcdf(tmp_path / "result.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "result.nc", engine="h5netcdf") as loaded:
        assert set(loaded.variables) == set(found.variables)


def test_what_is_not_defined_is_none():
    with pytest.warns(UserWarning, match="NaN"):
        found = skew(planted(np.zeros(16)))
    assert found.to_dict()["gini_of_mean_score"] is None
    assert math.isnan(found.summary()["gini_of_mean_score"])


def test_parts_of_intervals_are_named_after_their_field():
    found = {result.name: result for result in FOUND}
    held, agreed = found["overlap"], found["stability"]
    assert float(held.to_dataset()["null_auroc_low"]) == held.null["auroc"].low
    assert float(agreed.to_dataset()["mean_kendall_mean"]) == agreed.mean_kendall.mean
    above = found["position_control"].above_center
    assert float(found["position_control"].to_dataset()["above_center_interval_high"]) == (
        above.interval.high
    )


def test_plot_is_the_figure_of_its_name(monkeypatch):
    given = {}
    monkeypatch.setattr(
        figures, "plot_stability", lambda result, **options: given.update(options, of=result)
    )
    agreed = next(result for result in FOUND if result.name == "stability")
    agreed.plot(metric="kendall")
    assert given == {"of": agreed, "metric": "kendall", "axes": None}
    for result in FOUND:
        if result.name in ("survey", "position_control"):
            with pytest.raises(InputError, match=f"no figure of {result.name}"):
                result.plot()
        else:
            assert hasattr(figures, f"plot_{result.name}")


def test_text_in_a_notebook_is_escaped():
    class Hostile(Result):
        name, title = "hostile", "?"
        selection = "<script>alert(1)</script>"
        words: ClassVar = {"<img src=x>": ("<img src=y>", "<script>alert(2)</script>")}

        def summary(self):
            return {"<img src=x>": 1.0}

    shown = Hostile()._repr_html_()
    assert "<script>" not in shown
    assert "<img" not in shown


def test_what_diagnose_runs_are_diagnostics_of_a_profile():
    for diagnostic in diagnostics.OF_A_PROFILE:
        found = diagnostic(planted(np.arange(1.0, 17)), blocks="all")
        assert isinstance(found, Result)
        assert hasattr(figures, f"plot_{found.name}")
