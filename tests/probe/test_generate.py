"""The probe changes no image, and leaves no trace on the pipeline."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from recast_probe.errors import InputError, VerificationError
from recast_probe.interventions import WithoutReference
from recast_probe.probe import Probe
from recast_probe.runs.verification import Certificate, patches
from recast_probe.testing import tiny

QUIET = {"steps": 3, "progress": False}


@pytest.mark.parametrize(
    "settings",
    [
        {"blocks": "double", "profile_steps": [1]},
        {"height": 32, "width": 64},
        {"guidance_scale": 1.5},
    ],
)
def test_the_image_is_bit_identical_with_a_profile(probe, plain, image, settings):
    recorded = {"blocks", "profile_steps"}
    arguments = {k: v for k, v in settings.items() if k not in recorded}
    expected = plain(image, "a red fox", steps=3, seed=2, **arguments)
    result = probe.generate(image, "a red fox", seed=2, profile=True, **QUIET, **settings)
    np.testing.assert_array_equal(np.asarray(result.image), expected)
    assert result.profile is not None


def test_the_image_is_bit_identical_without_a_profile(probe, plain, image):
    result = probe.generate(image, "fox", **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), plain(image, "fox", steps=3))
    assert result.profile is None
    assert result.ranking is None
    assert result.reference_tokens_per_step == (16, 16, 16)
    assert result.mean_budget == 16


def test_reference_prompt_and_seed_show_in_the_image(plain, image):
    """Without this, all comparisons of images would be empty."""
    base = plain(image, "fox", steps=3)
    others = [
        plain(tiny.tiny_image(seed=1), "fox", steps=3),
        plain(image, "snow", steps=3),
        plain(image, "fox", steps=3, seed=1),
        plain(None, "fox", steps=3),
    ]
    for other in others:
        assert np.abs(base.astype(int) - other).max() > 5


def test_the_profile_of_generate_is_that_of_profile(probe, image):
    result = probe.generate(image, "fox", profile=True, **QUIET)
    profile = probe.profile(image, "fox", **QUIET)
    np.testing.assert_array_equal(result.profile.dataset["score"], profile.dataset["score"])


def test_without_a_reference(probe, plain):
    result = probe.generate(None, "fox", **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), plain(None, "fox", steps=3))
    assert result.reference_tokens_per_step == (0, 0, 0)
    with pytest.raises(InputError, match="no reference tokens"):
        probe.generate(None, "fox", profile=True, **QUIET)


def test_a_certificate_of_the_tiny_pipeline(probe, image):
    certificate = probe.verify(image, "fox", true_cfg_scale=2.0, negative_prompt="blurry")
    assert certificate.passed, str(certificate)
    assert certificate.attention_calls_expected == 2 * 2 * 5
    assert json.loads(json.dumps(certificate.to_dict()))["passed"] is True
    assert certificate._repr_html_().count("passed") == len(certificate.checks)


def test_another_exact_backend_is_certified(probe, image):
    from diffusers.models.attention_dispatch import attention_backend

    with attention_backend("_native_math"):
        assert probe.verify(image, "fox").passed
        model = probe.profile(image, "fox", **QUIET).provenance["model"]
    assert model["attention_backend"] == "_native_math"


def test_fused_projections_are_certified(tiny_folder, image):
    probe = Probe.from_pretrained(tiny_folder)
    probe.pipe.transformer.fuse_qkv_projections()
    assert probe.verify(image, "fox").passed


def test_a_certificate_can_fail():
    good = Certificate(0, 0, 10, 10, 1e-6, 1e-6, True)
    assert good.passed
    for field, value in {
        "image_difference": 1,
        "cross_check_image_difference": 1,
        "attention_calls_recorded": 9,
        "largest_mass_error": 0.1,
        "largest_score_difference": float("nan"),
        "untouched": False,
    }.items():
        bad = Certificate(**{**vars(good), field: value})
        assert not bad.passed
        assert str(bad).count("FAILED") == 1


def test_another_attention_is_refused(probe, image, monkeypatch):
    """A backend that is not plain softmax attention must not be replaced by one."""
    from diffusers.models import attention_dispatch

    own = attention_dispatch.dispatch_attention_fn
    monkeypatch.setattr(
        attention_dispatch, "dispatch_attention_fn", lambda *a, **k: own(*a, **k) * 1.5
    )
    with pytest.raises(VerificationError, match="differs from the pipeline's own"):
        probe.profile(image, "fox", **QUIET)


def state(pipeline):
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    return (
        patches(pipeline.transformer),
        dict(_AttentionBackendRegistry._backends),
        dict(pipeline._progress_bar_config),
        set(vars(pipeline)),
    )


@pytest.fixture
def fresh(tiny_folder) -> Probe:
    return Probe.from_pretrained(tiny_folder)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_leaves_the_pipeline_untouched(fresh, image, error):
    arguments = {"steps": 3, "progress": False}
    pipe = fresh.pipe
    pipe.set_progress_bar_config(leave=False)
    expected = np.asarray(pipe(**fresh.pipeline_arguments(image, "fox", steps=3)).images[0])
    before = state(pipe)

    def interrupt(pipeline, step, timestep, tensors):
        if step == 1:
            raise error("stop")
        return tensors

    with pytest.raises(error):
        fresh.generate(image, "fox", profile=True, callback_on_step_end=interrupt, **arguments)
    assert state(pipe) == before
    fresh.profile(image, "fox", **arguments)
    assert state(pipe) == before
    after = np.asarray(pipe(**fresh.pipeline_arguments(image, "fox", steps=3)).images[0])
    np.testing.assert_array_equal(after, expected)


def test_an_error_inside_attention_leaves_the_pipeline_untouched(fresh, image, monkeypatch):
    from recast_probe.pipelines import base

    before = patches(fresh.pipe.transformer)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "attend", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fresh.profile(image, "fox", **QUIET)
    assert patches(fresh.pipe.transformer) == before
    assert all("forward" not in names for names in before.values())


def test_a_wrapper_that_was_there_before_stays(fresh, image):
    from nnsight import NNsight

    wrapper = NNsight(fresh.pipe.transformer)
    before = patches(fresh.pipe.transformer)
    fresh.profile(image, "fox", **QUIET)
    assert patches(fresh.pipe.transformer) == before
    fresh.generate(image, "fox", **QUIET)
    assert wrapper.path == "model"


def test_threads_wait_for_one_another(probe, image):
    expected = {seed: probe.profile(image, "fox", seed=seed, **QUIET) for seed in range(4)}
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda seed: probe.profile(image, "fox", seed=seed, **QUIET), expected)
    for profile, other in zip(found, expected.values(), strict=True):
        np.testing.assert_array_equal(profile.dataset["score"], other.dataset["score"])


def test_an_identity_is_of_the_pipeline_between_runs(probe, image):
    """Not with the hooks of a run: it waits for another thread's, and is refused in one's own."""
    before, found = probe.identity(), []
    other = threading.Thread(target=lambda: found.append(probe.identity()))

    def during(_, step, *__):
        if step == 0:
            with pytest.raises(InputError, match="in an observed run"):
                probe.identity()
            other.start()
            other.join(0.3)
            assert found == []
        return {}

    result = probe.generate(image, "fox", callback_on_step_end=during, **QUIET)
    other.join(60)
    assert found == [before]
    assert result.provenance["model"]["identity"] == before


@pytest.mark.parametrize(("settings", "done"), [({}, "3/3"), ({"profile_steps": 1}, "2/2")])
def test_a_progress_bar_ends_where_the_run_ends(probe, image, capsys, settings, done):
    probe.profile(image, "fox", steps=3, progress=True, **settings)
    shown = capsys.readouterr().err
    assert done in shown.splitlines()[-1]
    probe.profile(image, "fox", steps=3, progress=False, **settings)
    assert capsys.readouterr().err == ""


def test_results_are_saved_with_their_provenance(probe, image, tmp_path):
    result = probe.generate(image, "a <b>fox</b>", **QUIET)
    (path,) = result.save(tmp_path / "fox.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(result.image))
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["prompt"] == "a <b>fox</b>"
    assert facts["reference_tokens_per_step"] == [16] * 3
    assert sorted(file.name for file in tmp_path.iterdir()) == ["fox.json", "fox.png"]
    assert "<b>" not in result._repr_html_()
    assert "a &lt;b&gt;fox" in result._repr_html_()
    two = probe.generate(image, ["fox", "snow"], interventions=[WithoutReference()], **QUIET)
    paths = two.save(tmp_path / "two.png")
    assert [file.name for file in paths] == ["two_0.png", "two_1.png"]
    with pytest.raises(InputError, match=r"must end in \.png"):
        result.save(tmp_path / "fox.jpg")
    with pytest.raises(InputError, match="does not exist"):
        result.save(tmp_path / "nowhere" / "fox.png")


def test_reprs_show_what_they_are(probe, image):
    assert "2 double-stream and 3 single-stream blocks" in repr(probe)
    assert repr(probe).replace(" ", "") in probe._repr_html_().replace(" ", "")
    assert "mean budget 16.0" in repr(probe.generate(image, "fox", **QUIET))
