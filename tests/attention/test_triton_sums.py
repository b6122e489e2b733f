"""The Triton kernel, interpreted on the CPU, against a dense float64 softmax."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from recast_probe.attention import sums

ROOT = Path(__file__).parents[2]


def found_by(module: str, **environment: str) -> dict[str, dict[str, float]]:
    """What another process printed."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: it is built for Linux on x86_64 and arm64 only")
    run = subprocess.run(
        [sys.executable, "-m", f"tests.attention.{module}"],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def cases() -> dict[str, dict[str, float]]:
    """What `triton_in_interpreter` found."""
    return found_by("triton_in_interpreter", TRITON_INTERPRET="1")


def of_sums(cases):
    return {name: case for name, case in cases.items() if "repeats" in case}


def test_all_sums_are_those_of_the_dense_softmax(cases):
    found = of_sums(cases)
    assert len(found) == 22
    for name, case in found.items():
        for quantity in ("row_mass", "row_surprise", "column_sum"):
            if quantity in case:
                # as exact as PyTorch's own float32, give or take the order of a sum
                allowed = 4 * case[f"{quantity}_torch"] + 5e-6
                assert case[quantity] <= allowed, (name, quantity)


def test_half_precision_scores_are_within_a_thousandth(cases):
    for name, case in of_sums(cases).items():
        if "float16" in name:
            assert case["relative"] < 1e-3, name


def test_two_runs_give_the_same_bits(cases):
    assert all(case["repeats"] == 1 for case in of_sums(cases).values())


@pytest.mark.parametrize("table", ["all", "queried"])
def test_a_whole_readout_through_the_kernel(cases, table):
    case = cases[f"readout, {table}"]
    assert case.pop("row_sum_error") < 1e-5
    assert len(case) == 13
    assert max(case.values()) < 1e-5


def test_a_wrong_log_sum_exp_stays_visible(cases):
    assert cases["nonsense"] == {"nan": 1.0, "infinite": 1.0}


def test_without_triton_one_notice_and_the_same_numbers(monkeypatch):
    monkeypatch.setattr(sums._Refused, "reason", None)
    monkeypatch.setattr(sums, "_has_triton", lambda: False)
    cuda = torch.device("cuda")
    with pytest.warns(UserWarning, match=r"not installed \(pip install .*'\.\[gpu\]'"):
        assert sums.reader(cuda, torch.bfloat16) == "torch"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sums.reader(cuda, torch.bfloat16) == "torch"
        assert sums.reader(torch.device("cpu"), torch.float32) == "torch"


def test_a_kernel_that_cannot_be_built_is_named_and_replaced(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC.")

    monkeypatch.setattr(sums._Refused, "reason", None)
    monkeypatch.setattr(sums, "reader", lambda device, dtype: "triton")
    monkeypatch.setitem(sys.modules, "recast_probe.attention.triton_sums", type(sys)("triton_sums"))
    sys.modules["recast_probe.attention.triton_sums"].triton_sums = broken
    query, key = torch.randn(2, 1, 5, 2, 8)
    lse = torch.zeros(1, 2, 5)
    with pytest.warns(UserWarning, match="RuntimeError: Failed to find C compiler"):
        found = sums.pair_sums(query, key, lse, 0.5)
    expected = sums.chunked_sums(query, key, lse, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_double_precision_is_left_to_pytorch(monkeypatch):
    monkeypatch.setattr(sums._Refused, "reason", None)
    monkeypatch.setattr(sums, "_has_triton", lambda: True)
    cuda = torch.device("cuda")
    assert sums.reader(cuda, torch.float64) == "torch"
    assert sums.reader(cuda, torch.float16) == "triton"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its assembler is for x86_64")
def test_the_kernel_compiles_for_gpus_and_stays_in_registers(tmp_path):
    found = found_by("triton_for_gpus", TRITON_CACHE_DIR=str(tmp_path))
    assert len(found) == 4
    for name, case in found.items():
        assert case["shared"] <= 64 * 2**10, name
        assert case.get("spilled", 0) == 0, name
