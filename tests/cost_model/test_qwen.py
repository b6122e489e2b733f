"""Qwen-Image's parameters and work: as the real class has them, as torch counts them."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import QwenImageTransformer2DModel
from torch.utils.flop_counter import FlopCounterMode

from recast_probe.commands.common import transformer_config
from recast_probe.cost_model import QwenImageConfig, RunPlan, bound, published_config, step_work
from recast_probe.cost_model.published_configs import CONFIGS
from recast_probe.errors import InputError

PUBLISHED = json.loads((CONFIGS / "qwen_image.json").read_text())
SMALL = PUBLISHED | {
    "in_channels": 32,
    "out_channels": 8,
    "num_layers": 3,
    "attention_head_dim": 24,
    "num_attention_heads": 5,
    "joint_attention_dim": 96,
    "axes_dims_rope": [4, 10, 10],
}


def build(config) -> QwenImageTransformer2DModel:
    with torch.device("meta"):
        return QwenImageTransformer2DModel.from_config(config)


def counted(model: QwenImageTransformer2DModel, text: int, rows: int, columns: int) -> int:
    config = model.config
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            hidden_states=torch.empty(1, 2 * rows * columns, config.in_channels),
            timestep=torch.empty(1),
            encoder_hidden_states=torch.empty(1, text, config.joint_attention_dim),
            img_shapes=[[(1, rows, columns)] * 2],
        )
    return counter.get_total_flops()


def test_the_published_size():
    found = published_config("qwen-image-edit")
    model = build(PUBLISHED)
    assert found.parameters == sum(p.numel() for p in model.parameters()) == 20_430_401_088
    assert found.modulation_parameters == sum(
        p.numel()
        for name, p in model.named_parameters()
        if "_mod." in name or name.startswith("norm_out")
    )


def test_the_published_size_with_layers():
    found = published_config("qwen-image-layered")
    model = build(json.loads((CONFIGS / "qwen_image_layered.json").read_text()))
    assert found.parameters == sum(p.numel() for p in model.parameters()) == 20_430_407_232
    assert found.block_linear == published_config("qwen-image-edit").block_linear


@pytest.mark.parametrize("zero_cond_t", [False, True])
@pytest.mark.parametrize("tokens", [(7, 3, 3), (40, 2, 9)])
def test_torch_counts_the_same_work(zero_cond_t, tokens):
    config = SMALL | {"zero_cond_t": zero_cond_t}
    text, rows, columns = tokens
    work = step_work(QwenImageConfig.from_dict(config), text, rows * columns, rows * columns)
    assert counted(build(config), text, rows, columns) == work.total


def test_the_most_that_pruning_can_give():
    config, full = published_config("qwen-image-edit"), RunPlan.full(1400, 4096, 4096, 28, calls=2)
    none = bound(config, full.keep(0, start=0))
    assert bound(config, full).speed_up == 1
    assert 1.9 < none.speed_up < 2.2
    assert bound(config, full.keep(600)).speed_up < none.speed_up


def test_configs_by_name_and_folder(qwen_folders):
    assert transformer_config("qwen-image-edit") == published_config("qwen-image-edit")
    found = transformer_config(str(qwen_folders["plus"]))
    assert isinstance(found, QwenImageConfig)
    assert found.zero_cond_t
    with pytest.raises(InputError, match="guidance_embeds=True"):
        QwenImageConfig.from_dict(SMALL | {"guidance_embeds": True})
    with pytest.raises(InputError, match="32 and 64 values"):
        QwenImageConfig.from_dict(SMALL | {"out_channels": 16})
    with pytest.raises(InputError, match="no 'num_layers'"):
        QwenImageConfig.from_dict({k: v for k, v in SMALL.items() if k != "num_layers"})
