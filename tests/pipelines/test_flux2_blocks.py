"""FLUX.2's blocks with hooked processors and from a cache: exact where nothing is stale."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.interventions import TokenCache
from recast_probe.interventions.base import RunContext
from recast_probe.interventions.token_cache import CachedRun
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.hooked_processor import hooked
from recast_probe.testing import tiny, tiny_flux2

TEXT = 12


def transformer_inputs(kept: int, seed: int, guidance: bool) -> dict[str, torch.Tensor]:
    """Two items of a batch, with everything that changes between steps drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    width = 3 * tiny_flux2.TEXT_WIDTH
    return {
        "hidden_states": torch.randn(2, 16 + kept, 16, generator=generator),
        "encoder_hidden_states": torch.randn(2, TEXT, width, generator=generator),
        "timestep": torch.rand(2, generator=generator),
        "guidance": torch.rand(2, generator=generator) if guidance else None,
        "img_ids": torch.arange(16 + kept)[:, None] * torch.tensor([0, 1, 2, 0]),
        "txt_ids": torch.arange(TEXT)[:, None] * torch.tensor([0, 0, 0, 1]),
    }


def cached_run(probe, kept: int, share: float, score: str) -> tuple[CachedRun, TokenLayout]:
    references = (Grid(4, 4),) if kept else ()
    layout = TokenLayout(text=TEXT, generation=Grid(4, 4), references=references)
    run = RunContext(layout, np.arange(3.0), np.arange(3.0), probe.block_kinds, prompts=2)
    settings = TokenCache(interval=3, fresh_share=share, score=score, first_full=1)
    return CachedRun(settings, run), layout


def guided(probe) -> bool:
    return bool(probe.pipe.transformer.config.guidance_embeds)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("kept", "score"), [(16, "key_norm"), (0, "value_norm")])
def test_a_cached_step_on_the_same_inputs_repeats_the_full_one(flux2_probe, share, kept, score):
    cache, layout = cached_run(flux2_probe, kept, share, score)
    inputs = transformer_inputs(kept, 0, guided(flux2_probe))
    pipeline = flux2_probe.pipe
    with torch.no_grad(), flux2_probe.family.cached_blocks(cache):
        outputs = []
        for step in range(3):
            cache.begin_call(step, "conditional", layout)
            outputs.append(pipeline.transformer(**inputs).sample[:, :16])
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=1e-5)
    found = cache.facts()["run"]["fresh_generation_share"]
    if share in (0.0, 1.0):
        assert found == {"double": share, "single": share}
    else:
        assert 0 < found["single"] < 1


@pytest.mark.parametrize("kept", [16, 0])
def test_with_fresh_attention_and_all_tokens_a_cached_step_is_a_full_one(flux2_probe, kept):
    """Nothing else is left over from the full step: attention is the only stale part."""
    first, second = (transformer_inputs(kept, seed, guided(flux2_probe)) for seed in (0, 1))
    transformer = flux2_probe.pipe.transformer
    cache, layout = cached_run(flux2_probe, kept, share=1.0, score="value_norm")
    with torch.no_grad(), flux2_probe.family.cached_blocks(cache):
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


def test_keys_and_values_are_measured_where_they_are_projected(flux2_probe):
    transformer = flux2_probe.pipe.transformer
    inputs, projected = transformer_inputs(16, 0, guided(flux2_probe)), {}
    double, single = transformer.transformer_blocks[0], transformer.single_transformer_blocks[0]
    hooks = [
        module.register_forward_hook(
            lambda m, i, output, name=name: projected.update({name: output})
        )
        for name, module in (("k", double.attn.to_k), ("all", single.attn.to_qkv_mlp_proj))
    ]
    cache, layout = cached_run(flux2_probe, 16, share=0.5, score="key_norm")
    with torch.no_grad(), flux2_probe.family.cached_blocks(cache):
        cache.begin_call(0, "conditional", layout)
        transformer(**inputs)
    for hook in hooks:
        hook.remove()
    width = tiny.HEADS * tiny.HEAD_DIMENSION
    for block, keys in ((0, projected["k"]), (2, projected["all"][..., width : 2 * width])):
        lengths = keys.unflatten(-1, (tiny.HEADS, -1)).norm(dim=-1).mean(-1)
        importance = cache._features["conditional", block].importance
        torch.testing.assert_close(importance, lengths)


@pytest.mark.parametrize("fused", [False, True])
def test_a_hooked_processor_is_the_original_to_the_last_bit(flux2_probe, fused):
    transformer, family = flux2_probe.pipe.transformer, flux2_probe.family
    inputs = transformer_inputs(16, 3, guided(flux2_probe))
    modules = [transformer.get_submodule(c.module) for c in family.attention_calls()]
    if fused:
        transformer.fuse_qkv_projections()
    originals = [module.processor for module in modules]
    try:
        with torch.no_grad():
            expected = transformer(**inputs).sample
            for module, processor in zip(modules, originals, strict=True):
                module.processor = hooked(processor)
            found = transformer(**inputs).sample
            seen = []
            for module in modules:
                module.processor.attend = lambda given, options: seen.append(given) or given[0]
            assert not torch.equal(transformer(**inputs).sample, expected)
    finally:
        for module, processor in zip(modules, originals, strict=True):
            module.processor = processor
        transformer.unfuse_qkv_projections()
    assert torch.equal(found, expected)
    assert [query.shape for query, _, _ in seen] == [(2, TEXT + 32, 2, 16)] * tiny.BLOCKS
