"""FLUX.2's parameters and work: as the real class has them, and as torch counts them."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from torch.utils.flop_counter import FlopCounterMode

from recast_probe.cost_model import (
    Flux2Config,
    RunPlan,
    bound,
    cached_run_work,
    config_from_dict,
    config_of,
    published_config,
    step_work,
)
from recast_probe.cost_model.published_configs import CONFIGS, PUBLISHED
from recast_probe.errors import InputError
from recast_probe.testing import tiny_flux2

# an MLP whose width is no multiple of the hidden width
SMALL = {
    **tiny_flux2.transformer_config(),
    "num_attention_heads": 5,
    "mlp_ratio": 2.3,
    "in_channels": 24,
}


def on_meta(config) -> Flux2Transformer2DModel:
    with torch.device("meta"):
        return Flux2Transformer2DModel.from_config(config)


def counted(model: Flux2Transformer2DModel, text: int, image: int) -> int:
    config = model.config
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            hidden_states=torch.empty(1, image, config.in_channels),
            timestep=torch.empty(1),
            guidance=torch.empty(1) if config.guidance_embeds else None,
            encoder_hidden_states=torch.empty(1, text, config.joint_attention_dim),
            txt_ids=torch.empty(text, 4),
            img_ids=torch.empty(image, 4),
        )
    return counter.get_total_flops()


@pytest.mark.parametrize("guidance", [False, True])
@pytest.mark.parametrize("tokens", [(7, 9, 5), (1, 30, 0)])
def test_torch_counts_the_same_parameters_and_work(guidance, tokens):
    text, generation, reference = tokens
    config = SMALL | {"guidance_embeds": guidance}
    model = on_meta(config)
    found = Flux2Config.from_dict(config)
    assert config_of(model) == found
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.modulation_parameters == sum(
        p.numel()
        for name, p in model.named_parameters()
        if "modulation" in name or "norm_out" in name
    )
    assert counted(model, text, generation + reference) == step_work(found, *tokens).total


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("flux2-dev", 32_223_281_152),
        ("flux2-klein-4b", 3_875_544_576),
        ("flux2-klein-9b", 9_078_581_248),
    ],
)
def test_published_sizes(name, parameters):
    model = on_meta(json.loads((CONFIGS / PUBLISHED[name]).read_text()))
    config = published_config(name)
    assert config.parameters == sum(p.numel() for p in model.parameters()) == parameters
    assert counted(model, 512, 4096 + 600) == pytest.approx(
        step_work(config, 512, 4096, 600).total, rel=1e-9
    )


def test_dev_is_the_default_of_its_class():
    stored = json.loads((CONFIGS / PUBLISHED["flux2-dev"]).read_text())
    for name, parameter in inspect.signature(Flux2Transformer2DModel.__init__).parameters.items():
        if name not in ("self", "out_channels"):
            default = parameter.default
            assert stored[name] == (list(default) if isinstance(default, tuple) else default), name


def test_a_plan_counts_what_the_model_computes():
    config = published_config("flux2-dev")
    full = RunPlan.full(512, 4096, 4096, 28)
    none = bound(config, full.keep(0, start=0))
    whole, without = (step_work(config, 512, 4096, count).total for count in (4096, 0))
    assert none.speed_up == pytest.approx(whole / without)
    # a fresh token goes through the MLP; a single-stream block projects all of it once more
    cached = full.cache_tokens([0], fresh=0.25)
    width = config.width
    expected = 0.25 * 4096 * 2 * width**2 * (8 * 9 + 48 * 13)
    fresh = {"double": 0.25, "single": 0.25}
    run = cached_run_work(config, 512, 4096, [4096, 4096], [0], fresh, pool=None)
    blocks = 2 * config.block_linear * config.blocks * 8704 + 4 * width * 8704**2 * config.blocks
    assert run == pytest.approx(2 * whole - blocks + expected)
    assert cached.step_work(config, cached.steps[1]).total == pytest.approx(run - whole)


def test_other_classes_are_refused():
    with pytest.raises(InputError, match=r"knows Flux.*, Flux2.*, Qwen.*, not UNet2D"):
        config_from_dict({"_class_name": "UNet2DModel"})
    with pytest.raises(InputError, match="no 'mlp_ratio'"):
        Flux2Config.from_dict({k: v for k, v in SMALL.items() if k != "mlp_ratio"})
