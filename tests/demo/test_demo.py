"""The demo on the tiny pipeline: complete, paired, resumable, self-contained."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe import pocket
from recast_probe.cli import main
from recast_probe.demo import DemoSettings, arms, drawing, pages, run_demo
from recast_probe.demo.verdict import verdict
from recast_probe.errors import InputError
from recast_probe.files import atomic
from recast_probe.files.envelope import file_digest, read_json, read_sealed
from recast_probe.studies.comparison import Comparison
from tests.browser import check, chromium

SETTINGS = DemoSettings(references=2, prompts=2, steps=3, seed=1)


def stored_runs(out):
    return sorted(p for p in (out / "runs").glob("[0-9]*.json"))


@pytest.fixture(scope="module")
def finished(probe, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    return run_demo(probe, out, SETTINGS), out


def test_the_summary_has_what_it_promises(finished):
    summary, out = finished
    assert read_json(out / "summary.json") == summary
    for name, digest in summary["files"].items():
        assert file_digest(out / name) == digest
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("runs/")} == {
        "summary.json",
        *summary["files"],
    }
    assert summary["seed"] == 1
    assert summary["versions"]["torch"]
    for arm in ("full", "recast", "random", "none"):
        identity = summary["arms"][arm]["identity"]
        # two references tell little: the ends are inside the possible, or are not told
        if identity["low"] is not None:
            assert -1 <= identity["low"] <= identity["mean"] <= identity["high"] <= 1
        else:
            assert identity["cannot_tell"]
        assert identity["count"] == 2, "references, since prompts of one are not independent"
    assert summary["arms"]["full"]["identity_to_full"]["mean"] == pytest.approx(1, abs=1e-5)
    assert 0.25 <= summary["skew"]["top25"] <= 1
    assert 0 < summary["entropy"]["last"] <= summary["entropy"]["maximum"] + 1e-9
    assert 0 < summary["entropy"]["first"] <= summary["entropy"]["maximum"] + 1e-9
    assert {"auroc", "mass_share", "base_rate"} <= set(summary["overlap"])
    assert -1 <= summary["stability"]["spearman"] <= 1
    assert set(summary["reference_gain"]) == {"recast", "random"}
    assert summary["skew"]["top_tokens"] / summary["skew"]["tokens"] == 0.25
    assert summary["seconds"] > 0


def test_numbers_are_those_of_the_stored_runs(finished, probe):
    summary, out = finished
    profiles = [rp.AttentionProfile.load(path) for path in sorted((out / "runs").glob("*.nc"))]
    assert len(profiles) == 4
    shares = [rp.skew(profile, blocks="single").top_share_of_mean_score for profile in profiles]
    assert summary["skew"]["top25"] == pytest.approx(np.mean(shares))
    records = [json.loads(path.read_text()) for path in stored_runs(out)]
    tokens = {
        record["key"]["arm"]: record["values"]["reference_tokens_per_step"] for record in records
    }
    full = tokens["full"][0]
    assert tokens["full"] == [full] * 3
    assert tokens["none"] == [0, 0, 0]
    assert tokens["recast"] == tokens["random"]
    assert tokens["recast"][0] == full
    assert summary["arms"]["recast"]["mean_budget"] == pytest.approx(np.mean(tokens["recast"]))


def test_arms_share_the_noise_and_profiling_changes_nothing(finished, probe):
    _, out = finished
    case = arms.cases(pocket.samples()[:2], 2, seed=1)[0]
    arguments = probe.pipeline_arguments(case.sample.image, case.prompt, steps=3, seed=case.seed)
    plain = np.asarray(probe.pipe(**arguments).images[0])
    (file,) = (out / "runs").glob(f"{case.name}-*-full-*.png")
    with Image.open(file) as stored:
        np.testing.assert_array_equal(np.asarray(stored), plain)
    seeds = [case.seed for case in arms.cases(pocket.samples(), 3, seed=1)]
    assert len(set(seeds)) == 72


def test_figures_and_report_need_nothing_else(finished):
    _, out = finished
    names = {path.name for path in (out / "figures").iterdir()}
    wanted = ("importance", "lorenz", "entropy", "overlap", "stability", "identity", "budget")
    assert {f"{name}.{kind}" for name in wanted for kind in ("png", "pdf")} <= names
    assert sum(name.startswith("grid-") and name.endswith(".png") for name in names) == 2
    page = (out / "report.html").read_text()
    assert "<script" not in page
    for address in re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', page):
        assert (out / address).exists()
    assert page.count("data:image/svg") == len(wanted) + 2
    headings = re.findall(r"<h[12]>(.*?)</h", page) + re.findall(r'class="title">(.*?)</p', page)
    # the same run is drawn in three places
    assert len([each for each in headings if not each.startswith("One run")]) == len(
        {each for each in headings if not each.startswith("One run")}
    )
    alts = re.findall(r' alt="([^"]+)"', page)
    assert len(alts) == len(set(alts)) == len(wanted) + 2
    assert all(re.search(r"\d", alt) for alt in alts), "a finding has numbers"
    assert "exactly as many tokens at each step" in page


def test_axe_finds_nothing_serious_in_the_report(finished):
    with chromium() as browser:
        check(browser, finished[1] / "report.html")


def compared(low, high, p_value, count):
    mean = None if low is None else (low + high) / 2
    found = {"mean": 0.2 if mean is None else mean, "low": low, "high": high}
    return {
        "identity_difference": {
            "recast_minus_random": {**found, "p_value": p_value, "count": count}
        },
        "arms": {arm: {"identity": {"mean": 0.31}} for arm in ("recast", "random")},
    }


@pytest.mark.parametrize(
    ("low", "high", "p_value", "count", "words"),
    [
        (0.1, 0.3, 0.01, 12, "more of the subject"),
        (-0.3, -0.1, 0.01, 12, "less of the subject"),
        (-0.1, 0.3, 0.2, 12, "Undecided with 12 subjects"),
        # one of the two alone decides nothing
        (0.1, 0.3, 0.12, 4, "Undecided with 4 subjects"),
        (-0.1, 0.3, 0.04, 12, "Undecided with 12 subjects"),
        (None, None, 0.5, 2, "Undecided with 2 subjects"),
        (None, None, None, 1, "Undecided with 1 subject:"),
    ],
)
def test_the_verdict_follows_interval_and_p_value(low, high, p_value, count, words):
    found = verdict(compared(low, high, p_value, count))
    assert words in found.answer
    assert ("cannot decide it" in found.evidence) == (count < 6)
    if low is not None:
        assert f"[{low:.3f}, {high:.3f}, n={count}]" in found.evidence


def test_overlap_stands_beside_what_position_alone_reaches(finished, probe):
    """The same numbers from the stored profiles: the middle, and masks of the other samples."""
    summary, out = finished
    samples = pocket.samples()
    found = []
    for path in sorted((out / "runs").glob("*.nc")):
        profile = rp.AttentionProfile.load(path)
        own = next(each for each in samples if path.name.startswith(each.name))
        masks = {}
        for each in samples:
            with suppress(InputError):  # no token of so coarse a grid inside
                masks[each.name] = probe.reference_mask(each.mask, each.image)
        found.append(
            rp.overlap(
                profile,
                masks.pop(own.name),
                blocks="single",
                other_masks=[mask for mask in masks.values() if not mask.all()],
            )
        )
    where = summary["overlap"]
    for name, values in {
        "auroc_interval": [each.auroc for each in found],
        "auroc_center": [each.center_auroc for each in found],
        "auroc_other_masks": [each.other_masks_auroc.mean() for each in found],
        "auroc_above_center": [each.above_center for each in found],
        "auroc_above_other_masks": [each.above_other_masks for each in found],
    }.items():
        assert where[name]["mean"] == pytest.approx(np.mean(values))
    assert where["auroc_above_center"]["p_value"] == 0.5  # of two references
    assert all(len(each.other_masks_auroc) > 10 for each in found)
    page = (out / "report.html").read_text()
    for name in ("auroc_center", "auroc_other_masks"):
        assert f"{where[name]['mean']:.3f} [" in page
        assert f"{where[name]['mean']:.2f}" in page
    assert "would do as well" not in page


def test_prompts_of_three_kinds_and_what_the_report_says_of_them(finished):
    summary, out = finished
    found = summary["stability"]
    assert found["kinds"] == ["in place", "moved", "another colour"]
    page = (out / "report.html").read_text()
    for kind in found["kinds"]:
        assert kind in page
    for name in ("spearman_same_kind", "spearman_other_kind", "spearman_interval"):
        assert f"{found[name]['mean']:.3f} [" in page
    # one prompt in place, one that moves, two of colour: 1 pair of one kind in each reference
    mixed = (found["spearman_same_kind"]["mean"] + 5 * found["spearman_other_kind"]["mean"]) / 6
    assert found["spearman"] == pytest.approx(mixed)
    assert "resample references and then prompts" not in page


def test_an_interrupted_demo_goes_on_where_it_was(probe, tmp_path, monkeypatch, capsys):
    run, calls = Comparison.run, []

    def counted(*arguments):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(arguments)
        return run(*arguments)

    monkeypatch.setattr(Comparison, "run", counted)
    # figures take seconds and are another test's matter
    monkeypatch.setattr(drawing, "draw", lambda *_: {})
    monkeypatch.setattr(pages, "write_page", lambda *_: None)
    settings = DemoSettings(references=1, prompts=2, steps=2)
    with pytest.raises(KeyboardInterrupt):
        run_demo(probe, tmp_path, settings)
    printed = capsys.readouterr().err
    assert f"3 of 8 runs are in {tmp_path / 'runs'}" in printed
    assert not (tmp_path / "summary.json").exists()
    monkeypatch.setattr(Comparison, "run", lambda *a: calls.append(a) or run(*a))
    run_demo(probe, tmp_path, settings)
    assert len(calls) == 8
    run_demo(probe, tmp_path, settings)
    assert len(calls) == 8
    # another seed shares nothing; a damaged profile is made again
    (damaged,) = (tmp_path / "runs").glob("*-0-*-full-*.nc")
    damaged.write_bytes(damaged.read_bytes()[:1000])
    run_demo(probe, tmp_path, settings)
    assert len(calls) == 9
    run_demo(probe, tmp_path, DemoSettings(references=1, prompts=2, steps=2, seed=5))
    assert len(calls) == 17


def test_a_full_disk_leaves_the_earlier_summary(probe, tiny_folder, tmp_path, monkeypatch, capsys):
    def flush(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "summary.json").write_text("earlier")
    monkeypatch.setattr(atomic.os, "fsync", flush)
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "demo",
                "--model",
                str(tiny_folder),
                "--steps",
                "2",
                "--out",
                str(tmp_path),
                "--overwrite",
            ]
        )
    assert stop.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
    assert (tmp_path / "summary.json").read_text() == "earlier"
    assert not list((tmp_path / "runs").iterdir())


def test_control_c_from_outside(tiny_folder, tmp_path):
    """A real interrupt in the middle of the runs: exit code 130, one place named, no traceback."""
    command = [sys.executable, "-m", "recast_probe.cli", "demo", "--model", str(tiny_folder)]
    with subprocess.Popen(
        [*command, "--references", "24", "--steps", "10", "--out", str(tmp_path), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # a shell's background jobs ignore Ctrl-C, and hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        deadline = time.monotonic() + 120
        while not stored_runs(tmp_path):
            assert process.poll() is None, process.stderr.read()  # type: ignore[union-attr]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert str(tmp_path / "runs") in err
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    for record in stored_runs(tmp_path):
        read_sealed(record, "Record")


@pytest.mark.parametrize(
    "settings",
    [
        {"references": 0},
        {"references": 25},
        {"prompts": 5},
        {"steps": 1},
        {"seed": -1},
        {"references": 1, "prompts": 1},
    ],
)
def test_impossible_sizes_are_refused(settings):
    with pytest.raises(InputError):
        DemoSettings(**settings)
