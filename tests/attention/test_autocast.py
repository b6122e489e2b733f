"""Under the user's autocast the image is the pipeline's own, and rows still sum to 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import attention_backend

from recast_probe.attention.readout import attend
from recast_probe.layout import Grid, TokenLayout
from recast_probe.testing import tiny_qwen

LAYOUT = TokenLayout(4, Grid(2, 3), (Grid(2, 2),))
SETTINGS = {
    "kontext": {},
    "ip-adapter": {},
    "flux2": {},
    "klein": {"guidance_scale": 4.0},
    "edit": {"negative_prompt": "blurry", "true_cfg_scale": 3.0, **tiny_qwen.SIZE},
    "plus": tiny_qwen.SIZE,
}


@pytest.fixture
def of_family(request, probe, adapter_probe, flux2_probes, qwen_probes):
    """A probe of a tiny pipeline, by the name of its family."""
    probes = {"kontext": probe, "ip-adapter": adapter_probe, **flux2_probes, **qwen_probes}
    return probes.__getitem__


@pytest.mark.parametrize("family", SETTINGS)
def test_the_image_is_the_pipelines_own_and_rows_sum_to_one(of_family, image, family):
    probe, settings = of_family(family), {"steps": 2, **SETTINGS[family]}
    outside = probe.generate(image, "fox", profile=True, progress=False, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        arguments = probe.pipeline_arguments(image, "fox", **settings)
        plain = np.asarray(probe.pipe(**arguments).images[0])
        runs = [
            probe.generate(
                image, "fox", profile=True, attachment=attachment, progress=False, **settings
            )
            for attachment in ("nnsight", "hooks")
            if attachment == "nnsight" or family != "ip-adapter"
        ]
    for run in runs:
        np.testing.assert_array_equal(np.asarray(run.image), plain)
        checked = run.profile.provenance["verification"]
        assert checked["largest_row_sum_error"] < 1e-4
        assert checked["largest_mass_error"] < 1e-4
        np.testing.assert_array_equal(run.profile.score, runs[0].profile.score)
        assert run.profile.score.dtype == outside.profile.score.dtype
        # half precision: close to what is read outside in the first step, and not the same
        assert np.abs(run.profile.score - outside.profile.score).max() > 0
        first = (each.profile.score.isel(step=0) for each in (run, outside))
        np.testing.assert_allclose(*first, atol=0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kinds", [(torch.float32,) * 3, (torch.float32, torch.float32, None)])
def test_probabilities_are_those_of_the_cast_numbers(dtype, kinds):
    """Known answer: the softmax in float64 of what autocast hands to attention."""
    generator = torch.Generator().manual_seed(0)
    tokens = LAYOUT.total
    given = [torch.randn(1, tokens, 2, 16, generator=generator).to(kind or dtype) for kind in kinds]
    with torch.autocast("cpu", dtype=dtype):
        found = attend(*given, LAYOUT, pairs=(("generation", "reference"),), mass_table="all")
        own = torch.nn.functional.scaled_dot_product_attention(
            *(each.transpose(1, 2) for each in given)
        ).transpose(1, 2)
    query, key, _ = (each.to(dtype).double() for each in given)
    scores = torch.einsum("bqhd,bkhd->bhqk", query, key) / 16**0.5
    expected = scores.softmax(-1)[:, :, LAYOUT.span("generation"), LAYOUT.span("reference")]
    score = found.pairs["generation", "reference"].score
    torch.testing.assert_close(score.double(), expected.mean(-2), rtol=1e-4, atol=1e-5)
    assert score.dtype == torch.float32
    assert torch.equal(found.output, own)


def test_float64_is_left_as_it_is():
    """Autocast does not touch float64, so neither do the statistics."""
    given = torch.randn(3, 1, LAYOUT.total, 2, 16, dtype=torch.float64)
    plain = attend(*given, LAYOUT, pairs=(("generation", "reference"),), mass_table="all")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attend(*given, LAYOUT, pairs=(("generation", "reference"),), mass_table="all")
    assert torch.equal(plain.output, inside.output)
    pair = "generation", "reference"
    assert torch.equal(plain.pairs[pair].score, inside.pairs[pair].score)


def test_verify_and_rows_work_inside(probe, image):
    with torch.autocast("cpu", dtype=torch.bfloat16), attention_backend("native"):
        assert probe.verify(image, "fox", steps=2).passed
        maps = probe.attention_maps(image, "fox", steps=2, progress=False)
    assert np.isfinite(np.asarray(maps.data)).all()
