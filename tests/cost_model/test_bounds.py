"""Plans and bounds: the published sizes, the devices' peaks, and what cannot be planned."""

from __future__ import annotations

import pytest

from recast_probe.cost_model import (
    DEVICES,
    RunPlan,
    bound,
    device_limits,
    flux_kontext_dev,
    run_work,
    step_work,
)
from recast_probe.cost_model.devices import limits_of
from recast_probe.cost_model.plan_parser import paper_rows, planned
from recast_probe.errors import InputError
from recast_probe.selection.budgets import Adaptive

FLUX = flux_kontext_dev()
FULL = RunPlan.full(512, 4096, 4096, 28)
ONE = RunPlan.full(512, 4096, 4096, 1)


@pytest.mark.parametrize(
    ("plan", "speed_up"),
    [
        (ONE.keep(2048, start=0), 1.414),
        (ONE.keep(1024, start=0), 1.743),
        (ONE.keep(600, start=0), 1.918),
        (ONE.keep(256, start=0), 2.084),
        (ONE.keep(0, start=0), 2.224),
    ],
)
def test_bounds_of_a_step(plan, speed_up):
    assert bound(FLUX, plan).speed_up == pytest.approx(speed_up, abs=5e-4)


@pytest.mark.parametrize(
    ("words", "speed_up"),
    [
        ([], 1.0),
        (["eq4"], 1.887),
        (["eq4=256:1024:2"], 1.887),
        (["prune=eq4:256:1024"], 1.887),
        (["prune=600"], 1.857),
        (["reuse"], 1.831),
        (["reuse=1"], 1.831),
        (["reuse=1:28"], 1.831),
        (["reuse=1:1"], 1.0),
        (["reuse", "eq4"], 2.087),
        (["none"], 2.224),
        (["prune=600", "reuse", "compute=24"], 2.41),
        (["compute=20", "reuse", "prune=600"], 2.87),
        (["prune=600", "reuse", "compute=16"], 3.54),
        (["prune=600", "reuse", "compute=14"], 4.0),
        (["prune=600", "reuse", "fp8"], 3.39),
    ],
)
def test_bounds_of_a_run_of_28_steps(words, speed_up):
    assert bound(FLUX, planned(FULL, words)).speed_up == pytest.approx(speed_up, abs=6e-3)


def test_a_slow_attention_raises_what_pruning_can_give():
    plan = planned(FULL, ["eq4"])
    found = [bound(FLUX, plan, attention_slowdown=r).speed_up for r in (1, 1.5, 2, 3)]
    assert found == pytest.approx([1.89, 1.97, 2.03, 2.14], abs=6e-3)
    dense = [bound(FLUX, FULL.reuse(0 + 1), attention_slowdown=r).speed_up for r in (1, 3)]
    assert dense[0] == pytest.approx(dense[1], abs=2e-3), "it does not depend on attention"


def test_plans_count_what_single_steps_count():
    budget = Adaptive(256, 1024).schedule(28).tolist()
    counts = [4096, *budget[1:]]
    assert FULL.keep(budget).work(FLUX).total == run_work(FLUX, 512, 4096, counts).total
    reused = FULL.keep(budget).reuse().work(FLUX)
    assert reused.total == run_work(FLUX, 512, 4096, counts, reused_from=1).total
    guided = RunPlan.full(512, 4096, 4096, 28, calls=2, images=3)
    assert guided.work(FLUX).total == 6 * FULL.work(FLUX).total
    refreshed = FULL.keep(600).reuse(refresh=[14])
    again = step_work(FLUX, 512, 4096, 4096).total
    assert refreshed.step_work(FLUX, refreshed.steps[14]).total == again


def test_token_wise_caching_counts_what_its_own_arithmetic_counts():
    from recast_probe.cost_model.caching import cached_run_work
    from recast_probe.cost_model.traffic import step_traffic

    shares = {"double": 0.05, "single": 0.12}
    for fresh in (0.1, shares):
        each = fresh if isinstance(fresh, dict) else {"double": fresh, "single": fresh}
        plan = FULL.keep(600).cache_tokens(full_steps=[0, 1, 9], fresh=fresh)
        counts = [step.reference for step in plan.steps]
        # reading which tokens matter is no part of a plan
        whole = cached_run_work(FLUX, 512, 4096, counts, [0, 1, 9], each, pool=None)
        assert plan.work(FLUX).total == pytest.approx(whole, rel=1e-12)
        assert plan.step_work(FLUX, plan.steps[0]).total == step_work(FLUX, 512, 4096, 4096).total
    # by hand: 16 w^2 a fresh token in 19 blocks, 18 in 38; embedders and output on all tokens
    width, cached = 3072, plan.step_work(FLUX, plan.steps[2])
    blocks = 4096 * width**2 * (19 * 16 * 0.05 + 38 * 18 * 0.12)
    ends = 2 * (2 * width * 64 * (4096 + 600) + 4096 * width * 512)
    assert cached.linear == pytest.approx(blocks + ends, rel=1e-9)
    assert (cached.attention, cached.modulation) == (0, step_work(FLUX, 1, 1, 0).modulation)
    # bytes as well: in and out of both MLP layers of 19 x 0.05 + 38 x 0.12 blocks, and the ends
    moved = step_traffic(FLUX, plan, plan.steps[2]).activations
    rows = 512 + 4096 + 600
    fresh = (19 * 0.05 + 38 * 0.12) * 2 * 5 * width * 4096
    assert moved == pytest.approx(
        2 * (fresh + rows * width + 512 * 4096 + 2 * (rows - 512) * 64), rel=1e-9
    )


def test_seconds_on_devices():
    a100, h200 = (bound(FLUX, FULL, device_limits(name)) for name in ("a100", "h200"))
    assert a100.least_seconds == pytest.approx(14.85, abs=5e-3)
    assert h200.least_seconds == pytest.approx(4.68, abs=5e-3)
    assert a100.limited_by == h200.limited_by == "compute"
    # 11.9 billion numbers of 2 bytes, once in each of 28 steps
    assert h200.weight_bytes == 28 * 2 * FLUX.parameters
    one_token = bound(FLUX, RunPlan.full(1, 1, 0, 28), device_limits("h200"))
    assert one_token.limited_by == "memory"
    assert one_token.least_seconds == pytest.approx(28 * 2 * FLUX.parameters / 4.8e12)
    skipped = bound(FLUX, FULL.compute(14), device_limits("h200"))
    assert skipped.least_seconds == pytest.approx(h200.least_seconds / 2)
    assert skipped.weight_bytes == h200.weight_bytes / 2


def test_eight_bits_take_half_the_time_where_there_are_any():
    plan = FULL.in_float8()
    work = plan.work(FLUX)
    found = bound(FLUX, plan, device_limits("h200"))
    rest = (work.attention + work.modulation) / 989.4e12
    assert found.compute_seconds == pytest.approx(work.linear / 1978.9e12 + rest)
    assert found.weight_bytes < bound(FLUX, FULL).weight_bytes
    with pytest.raises(InputError, match="8-bit"):
        bound(FLUX, plan, device_limits("a100"))


def test_devices_by_the_names_that_cuda_reports():
    assert limits_of("NVIDIA H200") is DEVICES["h200"]
    assert limits_of("NVIDIA H100 80GB HBM3") is DEVICES["h100"]
    assert limits_of("NVIDIA A100-SXM4-80GB") is DEVICES["a100"]
    for other in ("NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA A100-PCIE-40GB", "Tesla T4"):
        assert limits_of(other) is None
    with pytest.raises(InputError, match="peak-tflops"):
        device_limits("tpu")


def test_reading_costs_as_much_as_published():
    read = FULL.read(0).work(FLUX).total - FULL.work(FLUX).total
    assert read / step_work(FLUX, 512, 4096, 4096).total == pytest.approx(0.0355, abs=5e-5)


def test_the_usual_rows_fit_any_reference():
    for reference in (1, 3, 17, 256, 4096):
        full = RunPlan.full(32, 256, reference, 28)
        for words in paper_rows(reference).values():
            assert bound(FLUX, planned(full, words)).speed_up >= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prune=5000"], "does not fit a reference of 4096"),
        (["prune"], "A budget is"),
        (["prune=x"], "A budget is"),
        (["prune=600.5"], "whole number"),
        (["prune=600", "eq4"], "Only one"),
        (["prune=600", "prune=500"], "more than once"),
        (["reuse=0"], "from step 1"),
        (["reuse=1:0"], "reuse=K:N"),
        (["reuse=1:2:3"], "reuse=K:N"),
        (["reuse=1:4", "compute=14"], "compute cannot be counted"),
        (["compute=29"], "29 computed steps"),
        (["eq4=1"], "eq4:MINIMUM"),
        (["shrink=2"], "There is no 'shrink=2'"),
        (["read=28"], "outside the run"),
    ],
)
def test_what_cannot_be_planned(words, message):
    with pytest.raises(InputError, match=message):
        planned(FULL, words)


def test_plans_that_do_not_fit():
    with pytest.raises(InputError, match="at least 1 step"):
        RunPlan.full(1, 1, 1, 0)
    with pytest.raises(InputError, match="2 budgets do not fit 28"):
        FULL.keep([1, 2])
    with pytest.raises(InputError, match="include step 0"):
        FULL.compute([1, 2])


def test_reuse_with_refreshing_in_words():
    assert planned(FULL, ["reuse=1:4", "eq4"]) == planned(FULL, ["eq4"]).reuse(1, range(0, 28, 4))
    assert planned(FULL, ["reuse=3:4"]) == FULL.reuse(3, range(2, 28, 4))


def test_shares_of_fresh_tokens_are_of_every_kind_of_block():
    config = flux_kontext_dev()
    one = FULL.cache_tokens([0], 0.2)
    both = FULL.cache_tokens([0], {"double": 0.2, "single": 0.2})
    assert both.work(config).total == one.work(config).total
    with pytest.raises(InputError, match="of single blocks, and the model has double ones"):
        FULL.cache_tokens([0], {"single": 0.2}).work(config)
