"""FLUX blocks that run from a cache: exact where nothing is stale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.errors import UnsupportedPipelineError
from recast_probe.interventions import TokenCache
from recast_probe.interventions.base import RunContext
from recast_probe.interventions.token_cache import CachedRun
from recast_probe.layout import Grid, TokenLayout
from recast_probe.probe import Probe
from recast_probe.testing import tiny


def transformer_inputs(kept: int, seed: int) -> dict[str, torch.Tensor]:
    """Two items of a batch, with everything that changes between steps drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(2, 16 + kept, 16, generator=generator),
        "encoder_hidden_states": torch.randn(2, 12, 32, generator=generator),
        "pooled_projections": torch.randn(2, 32, generator=generator),
        "timestep": torch.rand(2, generator=generator),
        "guidance": torch.full((2,), 2.5),
        "img_ids": torch.zeros(16 + kept, 3),
        "txt_ids": torch.zeros(12, 3),
    }


def cached_run(probe, kept: int, share: float) -> tuple[CachedRun, TokenLayout]:
    references = (Grid(4, 4),) if kept else ()
    layout = TokenLayout(text=12, generation=Grid(4, 4), references=references)
    run = RunContext(layout, np.arange(3.0), np.arange(3.0), probe.block_kinds, prompts=2)
    settings = TokenCache(interval=3, fresh_share=share, score="value_norm", first_full=1)
    return CachedRun(settings, run), layout


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("kept", [16, 0])
def test_a_cached_step_on_the_same_inputs_repeats_the_full_one(probe, share, kept):
    """With nothing changed since the full step, the cache is exact, whatever is computed anew."""
    cache, layout = cached_run(probe, kept, share)
    inputs = transformer_inputs(kept, seed=0)
    with torch.no_grad(), probe.family.cached_blocks(cache):
        outputs = []
        for step in range(3):
            cache.begin_call(step, "conditional", layout)
            outputs.append(probe.pipe.transformer(**inputs).sample[:, :16])
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=1e-5)
    found = cache.facts()["run"]["fresh_generation_share"]
    if share in (0.0, 1.0):
        assert found == {"double": share, "single": share}
    else:
        assert 0 < found["single"] < 1


@pytest.mark.parametrize("kept", [16, 0])
def test_with_fresh_attention_and_all_tokens_a_cached_step_is_a_full_one(probe, kept):
    """Nothing else is left over from the full step: attention is the only stale part."""
    first, second = (transformer_inputs(kept, seed) for seed in (0, 1))
    transformer = probe.pipe.transformer
    cache, layout = cached_run(probe, kept, share=1.0)
    with torch.no_grad(), probe.family.cached_blocks(cache):
        cache.begin_call(0, "second", layout)
        expected = transformer(**second).sample[:, :16]
        cache.begin_call(0, "first", layout)
        transformer(**first)
        cache.begin_call(1, "first", layout)
        stale = transformer(**second).sample[:, :16]
        for block in range(tiny.BLOCKS):
            attention = cache._features["second", block].attention
            cache._features["first", block].attention = attention
        refreshed = transformer(**second).sample[:, :16]
    assert (stale - expected).abs().max() > 1e-2
    np.testing.assert_allclose(refreshed, expected, atol=1e-5)


def test_blocks_with_hooks_of_diffusers_are_refused(tiny_folder, image):
    from diffusers import FirstBlockCacheConfig

    probe = Probe.from_pretrained(tiny_folder)
    probe.pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.1))
    with pytest.raises(UnsupportedPipelineError, match="disable_cache"):
        probe.generate(image, "fox", interventions=[TokenCache()], steps=4, progress=False)
