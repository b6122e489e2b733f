"""What the commands compute and print when all is well."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

import recast_probe as rp
from recast_probe.diagnostics import skew


def one_object(text: str) -> dict:
    """The one JSON object on standard output, and nothing else."""
    assert text.count("\n") == 1
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(found, dict)
    return found


def test_profile_and_diagnose(command, files, tiny_folder, tmp_path, probe, image):
    out = tmp_path / "out"
    model = ("--model", tiny_folder, "--image", files / "image.png", "--steps", 2, "--seed", 4)
    mask = ("--mask", files / "mask.png")
    prompts = ("--prompt", "a fox", "--prompt", "a hen")
    outcome = command("profile", *model, *mask, *prompts, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    found = one_object(outcome.out)
    assert [row["prompt"] for row in found["profiles"]] == ["a fox", "a hen"]
    assert found["profiles"][0]["overlap"]["base_rate"] == 0.25
    stored = rp.AttentionProfile.load(out / "profile-01.nc")
    fresh = probe.profile(image, "a hen", steps=2, seed=4, progress=False)
    np.testing.assert_array_equal(stored.score.values, fresh.score.values)

    profiles = (out / "profile-00.nc", out / "profile-01.nc")
    again = command("diagnose", *profiles, "--image", files / "image.png", *mask, "--out", out)
    assert again.code == 0, again.err
    assert "AUROC" in again.out
    repeated = ("diagnose", *profiles, "--blocks", "single", "--out", out)
    assert command(*repeated).code == 2, "the report is there already"
    outcome = command(*repeated, "--overwrite", "--json")
    found = one_object(outcome.out)
    expected = skew(stored, blocks="single").top_share_of_mean_score
    assert found["profiles"][1]["skew"]["top_share_of_mean_score"] == pytest.approx(expected)
    assert -1 <= found["stability"]["spearman"] <= 1
    assert found == json.loads((out / "diagnostics.json").read_text())
    for name in ("importance.png", "importance.pdf", "skew.pdf", "stability.png"):
        assert (out / name).stat().st_size > 1000
    # pictures in base64 may hold the letters, but no colon
    page = (out / "report.html").read_text().replace("http://www.w3.org", "")
    assert not re.search("https?:", page)


def test_the_full_method_is_the_plain_pipeline(command, files, tiny_folder, tmp_path, plain, image):
    out = tmp_path / "out"
    outcome = command(
        *("generate", "--model", tiny_folder, "--image", files / "image.png", "--steps", 2),
        *("--prompt", "a fox", "--method", "full", "--seed", 9, "--out", out, "--json"),
    )
    (row,) = one_object(outcome.out)["images"]
    with Image.open(row["file"]) as opened:
        np.testing.assert_array_equal(np.asarray(opened), plain(image, "a fox", steps=2, seed=9))
    provenance = json.loads((out / "full-a-fox-seed9.json").read_text())
    assert provenance["prompt"] == "a fox"


def test_methods_share_their_schedule(command, files, tiny_folder, tmp_path):
    budgets = {}
    for method in ("recast", "random", "none"):
        outcome = command(
            *("generate", "--model", tiny_folder, "--image", files / "image.png", "--steps", 4),
            *("--mask", files / "mask.png", "--prompt", "a fox", "--method", method),
            *("--out", tmp_path / "out", "--json"),
        )
        (row,) = one_object(outcome.out)["images"]
        budgets[method] = row["mean_budget"]
        assert -1 <= row["identity"]["mobilenet"] <= 1
    assert budgets["recast"] == budgets["random"]
    assert budgets["none"] == 0


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        (("--budget", 3), rp.Fixed(3)),
        (("--budget", "25%"), rp.Fixed(4)),
        (("--budget", "eq4:2:9:1"), rp.Adaptive(2, 9, 1.0)),
        (("--budget", "eq4:2:9:sigma"), rp.Adaptive(2, 9, 2.0, "sigma")),
    ],
)
def test_budgets_are_those_asked_for(
    command, files, tiny_folder, tmp_path, probe, image, options, budget
):
    outcome = command(
        *("generate", "--model", tiny_folder, "--image", files / "image.png", "--steps", 5),
        *("--prompt", "a fox", "--method", "recast", *options, "--out", tmp_path / "out"),
    )
    assert outcome.code == 0, outcome.err
    (file,) = (tmp_path / "out").glob("recast-*-a-fox-seed0.json")
    stored = json.loads(file.read_text())
    sigmas = probe.profile(image, "a", steps=5, progress=False).dataset["sigma"].values
    expected = [16, *budget.schedule(5, sigmas)[1:]]
    assert stored["reference_tokens_per_step"] == expected


def test_doctor_examines_the_installation(command):
    found = one_object(command("doctor", "--json").out)
    assert found["recast_probe"] == rp.__version__
    assert found["attention_backend"]
    assert found["versions"]["nnsight"]
    said = command("doctor").out
    assert found["attention_backend"] in said
    assert "sample:waffle" in said


def test_doctor_reports_a_broken_torchvision(monkeypatch, tmp_path):
    from recast_probe.commands import doctor_checks

    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "nms" in (doctor_checks._broken_torchvision() or "")


def test_pocket_training_starts_from_a_pack(command, tmp_path, monkeypatch):
    from recast_probe.pocket import recipe

    called = {}
    monkeypatch.setattr(recipe, "run", lambda *a, **k: called.update(k, places=a) or {"steps": 1})
    outcome = command(
        *("pocket", "train", "--pack", "p.npz", "--out", tmp_path, "--minutes", 2, "--json")
    )
    assert one_object(outcome.out) == {"steps": 1, "model": str(tmp_path / "model")}
    assert called["minutes"] == 2


def test_pocket_evaluation_prints_its_summary(command, tmp_path, monkeypatch, tiny_folder):
    from recast_probe.pocket import evaluate

    def found(pipeline, *, progress, **settings):
        progress(3, 3)
        given = {name: settings[name] for name in ("subjects", "steps", "seed", "references")}
        return evaluate.Evaluation(
            retrieval={"full": 0.9, "none": 0.0},
            retrieval_by_kind={},
            swap_follows=0.8,
            intervals={"full": (0.8, 0.95)},
            seconds=1.0,
            seconds_per_image=1.0,
            **given,
        )

    monkeypatch.setattr(evaluate, "evaluate", found)
    asked = ("pocket", "evaluate", "--model", tiny_folder, "--subjects", 5, "--json")
    summary = one_object(command(*asked).out)
    assert summary["references"] == "middle"
    assert summary["intervals"] == {"full": [0.8, 0.95]}
    assert one_object(command(*asked, "--references", "anywhere").out)["references"] == "anywhere"
    assert summary["retrieval"] == {"full": 0.9, "none": 0.0}
    assert (summary["swap_follows"], summary["subjects"]) == (0.8, 5)
