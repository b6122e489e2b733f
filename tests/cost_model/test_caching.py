"""The work of runs with a feature cache: its limits, and by hand."""

from __future__ import annotations

import pytest

from recast_probe.cost_model import (
    cached_run_work,
    flux_kontext_dev,
    mean_fresh,
    run_work,
    step_work,
)
from recast_probe.errors import InputError
from recast_probe.selection.fresh_tokens import FreshShare

FLUX = flux_kontext_dev()
NOTHING = {"double": 0.0, "single": 0.0}


def test_all_steps_in_full_are_a_run_without_a_cache():
    counts = [4096, 600, 300, 0]
    found = cached_run_work(FLUX, 512, 4096, counts, range(4), NOTHING)
    assert found == pytest.approx(run_work(FLUX, 512, 4096, counts).total)


def test_a_cached_step_by_hand():
    plain = cached_run_work(FLUX, 512, 4096, [4096, 4096], [0], NOTHING, pool=None)
    full = step_work(FLUX, 512, 4096, 4096)
    width = FLUX.width
    ends = 2 * width * (2 * FLUX.channels * 8192 + FLUX.text_width * 512)
    assert plain == pytest.approx(full.total + ends + full.modulation)
    fresh = {"double": 0.5, "single": 1.0}
    computed = cached_run_work(FLUX, 512, 4096, [4096, 4096], [0], fresh, pool=None)
    tokens = 19 * 16 * 0.5 + 38 * 18
    assert computed - plain == pytest.approx(tokens * 4096 * width**2)
    read = cached_run_work(FLUX, 512, 4096, [4096, 4096], [0], fresh)
    blocks = 19 * (8192 / 8704) + 38
    assert read - computed == pytest.approx(full.attention / 2 * blocks / 57)


def test_the_mean_share_of_fresh_tokens():
    assert mean_fresh(FreshShare.constant(0.3), FLUX, 28) == pytest.approx(
        {"double": 0.3, "single": 0.3}
    )
    found = mean_fresh(FreshShare(), FLUX, 28)
    assert 0 < found["double"] < found["single"] < 0.2


@pytest.mark.parametrize(("counts", "full"), [([], [0]), ([4096, 4096], [1])])
def test_a_run_starts_with_a_full_step(counts, full):
    with pytest.raises(InputError, match="first one is computed whole"):
        cached_run_work(FLUX, 512, 4096, counts, full, NOTHING)
