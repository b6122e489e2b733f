"""Everything a probe does, within torch's contexts: autocast, gradients, default types."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.attention.autocast import as_cast
from recast_probe.interventions import Knockout, Patch, Record, ReuseReference
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_qwen

QUIET = {"steps": 2, "progress": False}
WHAT = ("keys", "values", "attention output", "residual", "embeddings")
NOTHING_REUSED = [ReuseReference(refresh=1)]
CUT = Knockout("reference", "generation", heads=0)


def plain(probe: Probe, image: Any) -> np.ndarray:
    return np.asarray(probe.pipe(**probe.pipeline_arguments(image, "fox", steps=2)).images[0])


@pytest.fixture
def of_family(request):
    """A probe of a tiny pipeline, by the name of its family; only that one is built."""

    def probe_of(family: str) -> Probe:
        if family == "kontext":
            return request.getfixturevalue("probe")
        return request.getfixturevalue("flux2_probes")[family]

    return probe_of


@pytest.mark.parametrize("family", ["kontext", "flux2"])
def test_records_and_patches_under_autocast(of_family, image, family):
    probe = of_family(family)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = plain(probe, image)
        recorded = probe.generate(image, "fox", interventions=[Record(WHAT)], **QUIET)
        np.testing.assert_array_equal(np.asarray(recorded.image), wanted)
        assert recorded.activations.dtype == torch.float32
        # a run's own activations, patched into itself, change nothing
        for each in WHAT:
            patch = Patch(recorded.activations, what=each)
            made = probe.generate(image, "fox", interventions=[patch], **QUIET)
            np.testing.assert_array_equal(np.asarray(made.image), wanted)
    # those of a run in single precision are rounded to what the streams are
    activations = probe.record(image, "fox", what=WHAT, **QUIET)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        probe.generate(image, "fox", interventions=[Patch(activations)], **QUIET)


def test_the_rest_under_autocast(probe, image):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wanted = plain(probe, image)
        images = [
            np.asarray(probe.generate(image, "fox", interventions=[CUT], **settings, **QUIET).image)
            for settings in ({}, {"profile": True}, {"attachment": "hooks"})
        ]
        np.testing.assert_array_equal(images[0], images[1])
        np.testing.assert_array_equal(images[0], images[2])
        assert np.abs(images[0].astype(int) - wanted).max() > 0
        maps = probe.attention_maps(image, "fox", **QUIET)
        scores = probe.profile(image, "fox", **QUIET).dataset["score"].isel(branch=0)
        order = ("step", "block", "head", "token")
        rows = maps.data.mean("query").transpose(*order).values
        np.testing.assert_allclose(rows, scores.transpose(*order).values, atol=1e-6)
        ranked = probe.recast(image, "fox", budget=3, **QUIET)
        assert list(ranked.reference_tokens_per_step)[1] == 3
        with accelerate(probe.pipe, interventions=NOTHING_REUSED):
            np.testing.assert_array_equal(plain(probe, image), wanted)
        assert torch.get_autocast_dtype("cpu") == torch.bfloat16


def test_a_certificate_is_of_the_cast_numbers(qwen_probes, image):
    """Rotary positions leave query and key in single precision, and attention casts them."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        certificate = qwen_probes["plus"].verify(image, "fox", steps=2, **tiny_qwen.SIZE)
    assert certificate.passed, str(certificate)


def test_only_what_attention_casts_is_cast():
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert as_cast(single).dtype == torch.bfloat16
        assert as_cast(double).dtype == torch.float64
    assert as_cast(single).dtype == torch.float32


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


CONTEXTS = {
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
    "deterministic": deterministic,
    "default float64": default_float64,
    "default device": lambda: torch.device("cpu"),
}


@pytest.fixture(scope="module")
def outside():
    """A probe, and what it finds outside of any context: scores, an image, activations."""
    probe, image = Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
    known = probe.profile(image, "fox", **QUIET).score
    cut = np.asarray(probe.generate(image, "fox", interventions=[CUT], **QUIET).image)
    return probe, known, cut, probe.record(image, "fox", **QUIET)


@pytest.mark.parametrize("context", CONTEXTS)
def test_other_contexts(outside, context):
    (probe, known, cut, activations), image = outside, tiny.tiny_image()
    with CONTEXTS[context]():
        wanted = plain(probe, image)
        for attachment in ("nnsight", "hooks"):
            settings = {"attachment": attachment, **QUIET}
            result = probe.generate(image, "fox", profile=True, **settings)
            np.testing.assert_array_equal(np.asarray(result.image), wanted)
            np.testing.assert_allclose(result.profile.score, known, atol=1e-6)
        made = np.asarray(probe.generate(image, "fox", interventions=[CUT], **QUIET).image)
        np.testing.assert_allclose(made.astype(int), cut.astype(int), atol=1)
        patched = probe.generate(image, "fox", interventions=[Patch(activations)], **QUIET)
        np.testing.assert_allclose(
            np.asarray(patched.image).astype(int), wanted.astype(int), atol=1
        )
        probe.attention_maps(image, "fox", **QUIET)
        probe.recast(image, "fox", **QUIET)
        probe.record(image, "fox", **QUIET)
        assert probe.verify(image, "fox", steps=2).passed
        with accelerate(probe.pipe, interventions=NOTHING_REUSED):
            np.testing.assert_array_equal(plain(probe, image), wanted)
