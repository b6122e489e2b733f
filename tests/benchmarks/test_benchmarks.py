"""Every benchmark at a tiny size: it runs, says what it should, and its numbers fit together."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import (
    command,
    coverage,
    diagnostics,
    engines,
    overheads,
    peers,
    plans,
    profile_store,
    quality,
    readout,
    runs,
    scaling,
    steps,
    timing,
)
from recast_probe._utils.memory import Peak
from recast_probe.cost_model import RunPlan, config_of, published_config
from recast_probe.errors import InputError


def check_rows(found, base):
    rows = {name: row for name, row in found["arms"].items() if "median_seconds" in row}
    assert rows[base]["speed_up"] == 1
    for name, row in rows.items():
        assert row["median_seconds"] > 0, name
        assert row["speed_up"] * row["ratio"] == pytest.approx(1)
        assert row["peak_memory_bytes"] is None or row["peak_memory_bytes"] > 1e6
        if "bound" in row:
            assert row["share_of_bound"] == pytest.approx(row["speed_up"] / row["bound"])
            assert row["above_bound"] == (row["speed_up"] > row["bound"])
    return rows


def test_readout(tmp_path, capsys):
    file = tmp_path / "new" / "readout.json"
    sizes = ["--side", "4", "--text", "8", "--heads", "2", "--dim", "32"]
    found = readout.main([*sizes, "--device", "cpu", "--repeats", "1", "--out", str(file)])
    rows = check_rows(found, "plain step")
    assert set(rows) == {
        "plain step",
        "scores",
        "scores and entropies",
        "whole mass table",
        "scores by a fused call",
        "scores tile by tile",
        "materialised softmax",
    }
    bounds = [
        rows[each]["bound"] for each in ("scores", "scores and entropies", "whole mass table")
    ]
    assert 1 == rows["materialised softmax"]["bound"] > bounds[0] > bounds[1] > bounds[2]
    assert rows["scores by a fused call"]["bound"] < rows["scores"]["bound"]
    for row in rows.values():
        assert 0 < row["attention_seconds"] < row["median_seconds"]
    assert rows["plain step"]["ratio_by_attention"] == 1
    assert found["checks"]["bit_identical"]
    assert found["checks"]["relative_error_readout"] < 1e-4
    assert found["checks"]["relative_error_fused_call"] < 1e-4
    assert json.loads(file.read_text()) == found
    assert "reached" in capsys.readouterr().out


def test_readout_in_half_precision(capsys):
    sizes = ["--side", "4", "--text", "8", "--heads", "2", "--dim", "32", "--dtype", "bfloat16"]
    found = readout.main([*sizes, "--device", "cpu", "--repeats", "1", "--json"])
    assert found["checks"]["relative_error_readout"] < 1e-3
    for form in ("readout", "fused_call", "tiles"):
        assert found["checks"][f"error_of_sum_{form}"] < 1e-5
    assert json.loads(capsys.readouterr().out)["kernels"] == found["kernels"]


def test_runs(tiny_folder):
    found = runs.main(
        ["--model", str(tiny_folder), "--steps", "3", "--repeats", "1", "--device", "cpu"]
    )
    rows = check_rows(found, runs.FULL)
    assert {"no reference", "budget 1/2", "budget 1/16", "recast"} <= set(rows)
    assert rows["no reference"]["bound"] > rows["budget 1/16"]["bound"] > 1
    assert rows["budget 1/16"]["bound"] > rows["budget 1/2"]["bound"]
    assert rows["traced, all tokens"]["bound"] == 1
    assert rows["token-cache (ToCa)"]["bound"] == 1, "its first three steps are full"
    assert rows["accelerated: recast"]["bound"] == rows["recast"]["bound"]
    assert rows["accelerated: reuse with Eq. 4"]["bound"] > rows["recast"]["bound"]
    assert not [name for name in rows if "compiled" in name]
    assert found["fastest_full"] == runs.FULL
    assert found["kernels"]["attention"] == "cpu flash"


def test_runs_of_some_arms_only(tiny_folder):
    found = runs.main(
        [
            *("--model", str(tiny_folder), "--steps", "5", "--repeats", "1", "--device", "cpu"),
            *("--arms", "token-cache"),
        ]
    )
    assert set(found["arms"]) == {runs.FULL, "token-cache (ToCa)"}
    assert found["arms"]["token-cache (ToCa)"]["bound"] > 1
    with pytest.raises(InputError, match="no arm 'recasst'; there is full"):
        runs.main(["--device", "cpu", "--arms", "reuse; recasst"])


def test_runs_with_compiled_blocks(tiny_folder, monkeypatch):
    monkeypatch.setattr(runs, "COMPILE_OPTIONS", {"backend": "eager"})
    torch._dynamo.reset()
    found = runs.main(
        [
            *("--model", str(tiny_folder), "--steps", "4", "--repeats", "1", "--device", "cpu"),
            *("--compiled", "--backend", "native", "--arms", "full, compiled;16/28 steps"),
        ]
    )
    rows = check_rows(found, runs.FULL)
    fewer = "accelerated: reuse with Eq. 4, 16/28 steps"
    assert set(rows) == {runs.FULL, "full, compiled", fewer, f"{fewer}, compiled"}
    assert rows["full, compiled"]["bound"] == 1
    # aligned budgets are not below the ones that are aligned
    assert 4 / 2 < rows[f"{fewer}, compiled"]["bound"] <= rows[fewer]["bound"]
    assert found["attention_backend"] == "native"
    torch._dynamo.reset()


def test_plans_from_what_interventions_report():
    full = RunPlan.full(8, 16, 16, 4)
    facts = {"run": {"stored_steps": [0], "reused_steps": [1, 2, 3]}}
    assert plans.MORE["ReuseReference"](full, facts) == full.reuse(1)
    facts = {"run": {"computed_steps": {"conditional": [0, 2]}}}
    assert plans.MORE["StepCache"](full, facts).computed == (0, 2)
    facts = {"run": {"full_steps": [0, 3], "fresh_generation_share": {"single": 0.2}}}
    cached = plans.MORE["TokenCache"](full, facts)
    assert cached == full.cache_tokens([0, 3], {"double": 1.0, "single": 0.2})


def test_peers_that_fail_say_why(tiny_folder):
    found = peers.main(
        ["--model", str(tiny_folder), "--steps", "4", "--repeats", "1", "--device", "cpu"]
    )
    rows = found["arms"]
    check_rows(found, peers.FULL)
    assert set(rows) == set(peers.PEERS)
    assert "No cache context" in rows["FirstBlockCache (diffusers)"]["error"]
    assert "No cache context" in rows["TaylorSeer (diffusers)"]["error"]
    assert "AttributeError" in rows["ToMe (tomesd)"]["error"]
    assert all("median_seconds" in row or row["error"] for row in rows.values())
    assert not [name for name, row in rows.items() if "left_behind" in row]


def test_a_peer_that_leaves_something_behind_changes_no_other_row(tiny_folder, monkeypatch):
    weights: dict[str, set[float]] = {}

    def seen(name, factor=1.0):
        @contextmanager
        def peer(pipe, steps):
            weight = pipe.transformer.proj_out.weight.data
            weights.setdefault(name, set()).add(float(weight.abs().sum()))
            weight.mul_(factor)
            yield

        return peer

    many = {peers.FULL: seen(peers.FULL), "leaves": seen("leaves", 1.5)}
    monkeypatch.setattr(peers, "PEERS", many | {"MagCache (diffusers)": peers.mag_cache})
    settings = ["--steps", "2", "--repeats", "2", "--device", "cpu"]
    found = peers.main(["--model", str(tiny_folder), *settings])
    assert "another image" in found["arms"]["leaves"]["left_behind"]
    as_it_was = min(weights["leaves"])
    # once just after the peer was tried, which is how it is found out
    assert sorted(weights[peers.FULL]) == [as_it_was, pytest.approx(1.5 * as_it_was)]
    assert len(weights["leaves"]) == 4  # tried once, timed three times


def test_attention_on_the_cpu_is_counted():
    query, key = torch.randn(2, 3, 16, 8), torch.randn(2, 3, 24, 8)
    with FlopCounterMode(display=False, custom_mapping=peers.UNCOUNTED) as counter:
        torch.nn.functional.scaled_dot_product_attention(query, key, key)
    assert counter.get_total_flops() == 4 * 2 * 3 * 16 * 24 * 8


def test_diagnostics(tmp_path):
    sizes = ["--pairs", "4", "--plain-pairs", "3", "--steps", "2", "--blocks", "3", "--side", "8"]
    written = ["--out", str(tmp_path / "found.json")]
    found = diagnostics.main([*sizes, "--repeats", "1", "--folder", str(tmp_path), *written])
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert found["largest_difference"] < 1e-9
    assert 0 < found["spearman_of_all"] < 1
    assert [row["pairs"] for row in found["arms"].values()] == [3, 3, 4]
    assert len(list(tmp_path.glob("*.nc"))) == 4


def test_engines():
    """Here alone; what Ray makes is in `studies/test_ray.py`."""
    (row,) = engines.main(["--subjects", "1", "--steps", "2", "--workers"])
    assert row["engine"] == "local"
    assert 0 < row["seconds a run"] < row["whole seconds"]


def test_scaling(tiny_folder):
    found = scaling.main(
        [
            *("--device", "cpu", "--repeats", "1", "--text", "8", "--pixels", "32,64"),
            *("--references", "1,2", "--pairs", "1,2", "--model", str(tiny_folder)),
            *("--steps", "1"),
        ]
    )
    rows = found["arms"]
    assert rows["64 x 64, 1 reference"]["speed_up"] == 1
    assert rows["64 x 64, 2 references"]["bound"] < 1 < rows["32 x 32, 1 reference"]["bound"]
    assert rows["2 pairs profiled"]["bound"] == pytest.approx(0.5)


def test_results_above_their_bound_are_flagged(capsys):
    rows = {"full": {"seconds": [4.0, 5.0, 9.0]}, "pruned": {"seconds": [1.0, 1.0, 3.0]}}
    for row in rows.values():
        row |= {"median_seconds": sorted(row["seconds"])[1], "interquartile_seconds": 0.1}
    timing.add_speed_ups(rows, "full", {"full": 2.0, "pruned": 1.0})
    assert rows["pruned"]["above_bound"]
    # turn by turn 1/4, 1/5 and 1/3
    assert rows["pruned"]["ratio"] == 0.25
    assert rows["pruned"]["share_of_bound"] == 2
    assert not rows["full"]["above_bound"]
    timing.print_rows(rows, "full")
    assert capsys.readouterr().out.count("ABOVE ITS BOUND") == 1


def test_memory_is_the_most_of_all_turns(monkeypatch):
    peaks = iter([(90, 9), (10, 4), (30, 1), (20, 3)])  # the first turn warms up

    @contextmanager
    def peak_memory(device):
        yield Peak(*next(peaks))

    monkeypatch.setattr(timing, "peak_memory", peak_memory)
    row = timing.alternate({"full": lambda: None}, 3, "cpu", "full")["full"]
    assert (row["peak_memory_bytes"], row["extra_memory_bytes"]) == (30, 4)


def test_an_arm_that_fails_is_named_only_where_that_is_allowed():
    def broken():
        raise ValueError("no such kernel")

    arms = {"full": lambda: None, "broken": broken}
    rows = timing.alternate(arms, 1, "cpu", "full", may_fail=True)
    assert rows["broken"] == {"error": "ValueError: no such kernel"}
    with pytest.raises(ValueError, match="no such kernel"):
        timing.alternate(arms, 1, "cpu", "full")


def test_coverage_is_that_of_the_docs(capsys):
    found = coverage.main(["--studies", "8", "--counts", "4", "12"])
    page = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text(encoding="utf-8")
    for name, by_count in found["coverage"].items():
        assert f"| {name} " in page
        assert list(by_count) == [4, 12]
    bounded = found["coverage"]["mean: 10 % fail"][4]
    assert bounded["covered"] == 1
    assert 0 < bounded["width"] < 1
    assert found["coverage"]["mean: normal"][12]["covered"] >= 0.7
    assert "cannot tell" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["flux-kontext", "flux2-klein-4b"])
def test_a_step_of_the_published_blocks(model, capsys):
    sizes = ["--pixels", "256", "--narrow", "12", "--budgets", "64", "16", "--dtype", "float32"]
    found = steps.main([*sizes, "--model", model, "--repeats", "1", "--json"])
    rows = check_rows(found, "full")
    assert found["tokens"] == 512 + 256 + 256
    bounds = {name: row["bound"] for name, row in rows.items()}
    assert 1 == bounds["full"] < bounds["ReCAST, 64 tokens"] < bounds["ReCAST, 16 tokens"]
    assert bounds["ReCAST, 16 tokens"] < bounds["no reference"]
    assert bounds["merge (ToMe), 64 tokens"] == bounds["ReCAST, 64 tokens"]
    assert 1 < bounds["reuse, all tokens"] < bounds["no reference"]


def test_some_arms_of_a_step(capsys):
    sizes = ["--pixels", "128", "--narrow", "24", "--budgets", "16", "--dtype", "float32"]
    found = steps.main([*sizes, "--arms", "no reference", "--repeats", "1", "--json"])
    assert list(found["arms"]) == ["full", "no reference"]
    with pytest.raises(SystemExit):
        steps.main([*sizes, "--arms", "no references"])
    assert "there is no arm 'no references'" in capsys.readouterr().err


@pytest.mark.parametrize("name", steps.MODELS)
def test_blocks_are_the_published_ones_but_for_their_number(name):
    chosen = steps.MODELS[name]
    found = config_of(steps.build(chosen, narrow=12).transformer)
    published = published_config(chosen.published)
    assert found.heads == published.heads // 12
    assert found.head_dim == published.head_dim
    assert found.mlp_width / found.width == published.mlp_width / published.width
    assert found.blocks == 2


@pytest.mark.parametrize("benchmark", [quality, overheads, diagnostics])
def test_what_runs_on_the_cpu_does_not_say_that_it_ran_elsewhere(benchmark, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    options = command.parse_for_cpu(command.parser(None), [])
    assert options.device == "cpu"
    with pytest.raises(SystemExit):
        benchmark.main(["--device", "cuda"])
    assert "it runs on the CPU alone, not on cuda" in capsys.readouterr().err


def test_no_option_is_without_effect(capsys):
    for benchmark in (quality, profile_store):
        with pytest.raises(SystemExit):
            benchmark.main(["--repeats", "3"])
        assert "unrecognized arguments: --repeats" in capsys.readouterr().err
    assert command.parser(None, repeats=3).parse_args([]).repeats == 3


@pytest.mark.parametrize(("times", "range_"), [([1.0], 0), ([1.0, 3.0], 1), ([1, 2, 3, 4, 5], 2)])
def test_a_range_lies_within_the_times(times, range_):
    assert timing._interquartile(times) == range_


def test_quality_against_time(tmp_path, capsys):
    picture = tmp_path / "new" / "quality.svg"
    asked = ["--subjects", "2", "--steps", "4", "--figure", str(picture)]
    found = quality.main([*asked, "--json"])
    rows = {name: row for name, row in found["arms"].items() if "error" not in row}
    assert rows["full"]["speed_up"] == 1
    assert {"accelerate: as it is", "FirstBlockCache: 0.08"} <= set(rows)
    # 20, 14 and 10 are of 28
    fewer = [name for name in rows if name.startswith("fewer steps")]
    assert fewer == ["fewer steps: 3", "fewer steps: 2", "fewer steps: 1"]
    assert set(found["failed"]) <= {name for name in found["arms"] if "cache-dit" in name}
    for name, row in rows.items():
        assert row["speed_up"] > 0
        if name != "full":
            lost, low, high = row["identity_minus_full"]
            assert (low is None and lost == 0) or low <= lost <= high
    assert picture.read_text("utf-8").startswith("<?xml")
