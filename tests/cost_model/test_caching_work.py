"""The work of full and cached steps, by hand."""

from __future__ import annotations

import pytest

from recast_probe.cost_model.caching_work import (
    cached_step_share,
    cached_step_work,
    full_step_work,
)
from recast_probe.layout import Grid, TokenLayout

KINDS = ["double"] * 19 + ["single"] * 38
LAYOUT = TokenLayout(text=512, generation=Grid(64, 64), references=(Grid(64, 64),))


def test_work_of_a_full_step_of_flux():
    work = full_step_work(LAYOUT, KINDS, 3072)
    assert work.linear == pytest.approx(112.4e12, rel=1e-3)
    assert work.attention == pytest.approx(53.1e12, rel=1e-3)
    assert work.readout == 0


def test_work_of_reading_attention():
    # the whole matrix once more in single-stream blocks, all but the text keys in the others
    work = full_step_work(LAYOUT, KINDS, 3072, pool="stream")
    blocks = 19 * (8192 / 8704) + 38
    assert work.readout == pytest.approx(work.attention / 2 * blocks / 57)
    own = full_step_work(LAYOUT, KINDS, 3072, pool="generation")
    assert own.readout == pytest.approx(work.attention / 2 * 4608 / 8704)


def test_work_of_a_cached_step():
    nothing = cached_step_share(LAYOUT, KINDS, 3072, {"double": 0, "single": 0})
    assert nothing == {"linear": 0, "attention": 0, "total": 0}
    work = cached_step_work(LAYOUT, KINDS, 3072, {"double": 1.0, "single": 0.5})
    expected = 4096 * 3072**2 * (19 * 16 + 38 * 18 / 2)
    assert work.linear == pytest.approx(expected)
    share = cached_step_share(LAYOUT, KINDS, 3072, {"double": 1.0, "single": 0.5})
    assert share["linear"] == pytest.approx(expected / 112.37e12, rel=1e-3)
    assert share["attention"] == 0
    assert share["total"] == pytest.approx(expected / 165.48e12, rel=1e-3)


def test_work_without_a_reference():
    layout = TokenLayout(text=512, generation=Grid(64, 64))
    own = full_step_work(layout, KINDS, 3072, pool="generation")
    assert own.readout == pytest.approx(own.attention / 2 * 4096 / 4608)
