"""Parameters and work: as the real class has them, as torch counts them, as the paper's sizes."""

from __future__ import annotations

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch.utils.flop_counter import FlopCounterMode

from recast_probe.cost_model import FluxConfig, flux_kontext_dev, readout_work, run_work, step_work
from recast_probe.cost_model.published_configs import CONFIGS
from recast_probe.cost_model.work import needed_attention_slowdown
from recast_probe.errors import InputError
from recast_probe.selection.budgets import Adaptive

FLUX = flux_kontext_dev()
SMALL = {
    "in_channels": 32,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 24,
    "num_attention_heads": 5,
    "joint_attention_dim": 96,
    "pooled_projection_dim": 64,
    "guidance_embeds": False,
    "axes_dims_rope": (4, 10, 10),
}


def on_meta(config) -> FluxTransformer2DModel:
    with torch.device("meta"):
        return FluxTransformer2DModel.from_config(config)


def counted(model: FluxTransformer2DModel, text: int, image: int) -> int:
    config = model.config
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            hidden_states=torch.empty(1, image, config.in_channels),
            timestep=torch.empty(1),
            guidance=torch.empty(1) if config.guidance_embeds else None,
            pooled_projections=torch.empty(1, config.pooled_projection_dim),
            encoder_hidden_states=torch.empty(1, text, config.joint_attention_dim),
            txt_ids=torch.empty(text, 3),
            img_ids=torch.empty(image, 3),
        )
    return counter.get_total_flops()


def test_kontext_has_its_parameters():
    model = on_meta(FluxTransformer2DModel.load_config(CONFIGS / "flux_kontext_dev.json"))
    assert FLUX.parameters == sum(p.numel() for p in model.parameters()) == 11_901_408_320
    assert FLUX.modulation_parameters / 1e9 == pytest.approx(3.25, abs=0.01)


@pytest.mark.parametrize("guidance", [False, True])
def test_other_sizes(guidance):
    config = SMALL | {"guidance_embeds": guidance}
    model = on_meta(config)
    found = FluxConfig.from_dict(config)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.modulation_parameters == sum(
        p.numel()
        for name, p in model.named_parameters()
        if name.rsplit(".", 1)[0].endswith(
            ("norm.linear", "norm1.linear", "norm1_context.linear", "norm_out.linear")
        )
    )


@pytest.mark.parametrize("tokens", [(512, 4096, 4096), (512, 4096, 600), (512, 4096, 0)])
def test_torch_counts_the_same_work_of_kontext(tokens):
    text, generation, reference = tokens
    model = on_meta(FluxTransformer2DModel.load_config(CONFIGS / "flux_kontext_dev.json"))
    found = step_work(FLUX, *tokens).total
    assert counted(model, text, generation + reference) == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize("tokens", [(7, 9, 5), (1, 30, 0), (40, 3, 8)])
def test_torch_counts_the_same_work_of_other_sizes(tokens):
    text, generation, reference = tokens
    found = step_work(FluxConfig.from_dict(SMALL), *tokens).total
    assert counted(on_meta(SMALL), text, generation + reference) == found


def test_the_sizes_of_the_paper():
    full, kept, none = (step_work(FLUX, 512, 4096, count) for count in (4096, 600, 0))
    assert [round(work.total / 1e12, 2) for work in (full, kept, none)] == [165.46, 86.26, 74.38]
    assert full.total / kept.total == pytest.approx(1.918, abs=5e-4)
    assert full.total / none.total == pytest.approx(2.224, abs=5e-4)
    reused = step_work(FLUX, 512, 4096, 600, reused=True)
    assert full.total / reused.total == pytest.approx(2.17, abs=0.005)
    assert readout_work(FLUX, 4096, 4096) / full.total == pytest.approx(0.036, abs=5e-4)


def test_whole_runs():
    counts = [4096, *Adaptive(256, 1024).schedule(28)[1:].tolist()]
    full = run_work(FLUX, 512, 4096, [4096] * 28)
    recast = run_work(FLUX, 512, 4096, counts)
    assert full.total / recast.total == pytest.approx(1.89, abs=0.005)
    reused = run_work(FLUX, 512, 4096, counts, reused_from=1)
    assert full.total / reused.total == pytest.approx(2.09, abs=0.005)
    assert readout_work(FLUX, 4096, 4096) / full.total == pytest.approx(0.0013, abs=5e-5)
    fixed = [4096] + [600] * 27
    for computed, speed in ((24, 2.41), (20, 2.87), (16, 3.54), (14, 4.0)):
        found = run_work(FLUX, 512, 4096, fixed, reused_from=1, computed=computed)
        assert full.total / found.total == pytest.approx(speed, abs=0.06)
    with pytest.raises(InputError, match="computed=29"):
        run_work(FLUX, 512, 4096, fixed, computed=29)


def test_attention_must_be_that_much_slower():
    full, none = (step_work(FLUX, 512, 4096, count) for count in (4096, 0))
    factor = needed_attention_slowdown(full, none, 2.4)

    def seconds(work):
        return work.linear + work.modulation + factor * work.attention

    assert factor > 1
    assert seconds(full) / seconds(none) == pytest.approx(2.4)
    assert needed_attention_slowdown(full, none, 2.0) == 1
    assert needed_attention_slowdown(full, none, 4.0) is None


def test_configs_that_do_not_fit():
    with pytest.raises(InputError, match="not UNet2DModel"):
        FluxConfig.from_dict({"_class_name": "UNet2DModel"})
    with pytest.raises(InputError, match="no 'num_layers'"):
        FluxConfig.from_dict({})
    with pytest.raises(InputError, match="cannot be negative"):
        step_work(FLUX, 1, -1, 0)
