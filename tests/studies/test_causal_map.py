"""A causal map is what its patches do, whatever interrupts it."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from recast_probe import figures
from recast_probe.errors import InputError
from recast_probe.experiments.causal_map import causal_map, measured
from recast_probe.interventions import Patch
from recast_probe.testing import tiny

QUIET = {"steps": 3, "progress": False}
WINDOWS = {"block_window": 2, "step_window": 2}


def redness(picture) -> float:
    return float(np.asarray(picture, np.float64)[..., 0].mean())


@pytest.fixture(scope="module")
def other():
    return tiny.tiny_image(seed=9)


def test_values_of_a_map_by_hand():
    def flat(value):
        return Image.fromarray(np.full((2, 2, 3), value, np.uint8))

    data, whole = measured(
        [flat(10), flat(20), flat(30), flat(0)],
        flat(10),
        flat(30),
        ["0", "1"],
        ["0", "1"],
        {"red": redness, "same": lambda picture: 1.0},
    )
    np.testing.assert_allclose(data["shift"], [[0, 0.5], [1, 0.25]])
    np.testing.assert_allclose(data["red"], [[10, 20], [30, 0]])
    np.testing.assert_allclose(data["red share"], [[0, 0.5], [1, -0.5]])
    assert np.isnan(data["same share"]).all()
    assert whole == {"red": (10, 30), "same": (1, 1)}
    with pytest.raises(InputError, match="not a finite number"):
        measured([flat(1)], flat(0), flat(2), ["0"], ["0"], {"bad": lambda picture: np.nan})


def test_each_cell_is_the_run_with_its_patch(probe, image, other):
    found = causal_map(
        probe, image, "fox", other, blocks="double", scores={"red": redness}, **QUIET
    )
    assert found.data["shift"].dims == ("block", "step")
    assert found.data["block"].values.tolist() == ["0", "1"]
    assert found.data["step"].values.tolist() == ["0", "1", "2"]
    source = probe.record(other, "fox", ("keys", "values"), blocks="double", **QUIET)
    patch = Patch(source, blocks=1, steps=2)
    made = probe.generate(image, "fox", interventions=[patch], **QUIET).image
    assert float(found.data["red"].sel(block="1", step="2")) == redness(made)
    assert 0 < float(found.data["shift"].sel(block="1", step="2")) < 1
    assert found.whole["red"] == (redness(found.base), redness(found.source))
    assert len(found.table()) == 6
    figures.plot_causal_map({"pixels": found.data["shift"]}, selection=found.selection)


def test_shares_below_zero_are_drawn_as_such():
    def drawn(values):
        table = xr.DataArray(
            values, dims=("block", "step"), coords={"block": ["0"], "step": ["0", "1"]}
        )
        axes = figures.plot_causal_map({"identity": table}, selection="tiny").axes[0]
        return axes.collections[0].get_clim(), [text.get_text() for text in axes.texts]

    assert drawn([[0.4, -0.2]]) == ((-0.4, 0.4), ["0.40", "-0.20"])
    # less than a cell shows is no sign
    assert drawn([[0.4, -0.004]]) == ((0, 0.4), ["0.40", "0.00"])


def test_one_window_of_everything_is_the_source_run(probe, image, other):
    found = causal_map(
        probe,
        image,
        "fox",
        other,
        block_window=None,
        step_window=None,
        scores={"red": redness},
        **QUIET,
    )
    assert found.data["shift"].values.tolist() == [[1.0]]
    assert found.data["red share"].values.tolist() == [[1.0]]
    assert found.data["block"].values.tolist() == ["0-4"]


def test_the_cost_is_printed_before_the_sweep_starts(probe, image, other, capsys, monkeypatch):
    settings = {"steps": 3, "what": "residual", "tokens": "text", **WINDOWS}
    # the package's name of the same spelling is the function
    module = importlib.import_module("recast_probe.experiments.causal_map")
    monkeypatch.setattr(module, "run_study", lambda *_, **__: pytest.fail("began"))
    with pytest.raises(pytest.fail.Exception, match="began"):
        causal_map(probe, image, "fox", other, **settings)
    printed = capsys.readouterr().err
    assert "8 runs, 7 of them still to do: about" in printed
    stated = tiny.TEXT_TOKENS * tiny.BLOCKS * 3 * tiny.HEADS * tiny.HEAD_DIMENSION * 4
    assert f"{stated / 1000:.1f} kB of activations" in printed


SWEEP = {**QUIET, **WINDOWS, "scores": {"red": redness}}


@pytest.fixture(scope="module")
def whole(probe, image, other):
    """The map of a sweep that nothing interrupts."""
    return causal_map(probe, image, "fox", other, **SWEEP)


@pytest.mark.parametrize("interrupt_at", [0, 1, 2, 5])
def test_an_interrupted_sweep_gives_the_same_map(
    tmp_path, probe, image, other, whole, monkeypatch, interrupt_at
):
    settings = SWEEP
    generate, made = type(probe).generate, []

    def counted(self, *arguments, **given):
        if len(made) == interrupt_at:
            raise KeyboardInterrupt
        made.append(1)
        return generate(self, *arguments, **given)

    with monkeypatch.context() as patched:
        patched.setattr(type(probe), "generate", counted)
        with pytest.raises(KeyboardInterrupt):
            causal_map(probe, image, "fox", other, folder=tmp_path, **settings)
    found = causal_map(probe, image, "fox", other, folder=tmp_path, **settings)
    xr.testing.assert_identical(found.data, whole.data)
    assert found.cost.left == min(7, 8 - interrupt_at + (interrupt_at > 1))
    with monkeypatch.context() as patched:
        patched.setattr(type(probe), "generate", lambda *_, **__: pytest.fail("ran again"))
        again = causal_map(probe, image, "fox", other, folder=tmp_path, **settings)
    xr.testing.assert_identical(again.data, whole.data)
    assert again.cost.left == 0
    with pytest.raises(InputError, match="other settings"):
        causal_map(probe, image, "fox", other, folder=tmp_path, **(settings | {"steps": 2}))


def test_sweeps_that_cannot_be(probe, image, other):
    with pytest.raises(InputError, match="is the run itself"):
        causal_map(probe, image, "fox", image, **QUIET)
    with pytest.raises(InputError, match="one prompt"):
        causal_map(probe, image, ["fox"], other, **QUIET)
    with pytest.raises(InputError, match="limit"):
        causal_map(probe, image, "fox", other, limit=1, **QUIET)
    with pytest.raises(InputError, match="no map"):
        figures.plot_causal_map({}, selection="")
