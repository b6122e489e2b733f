"""LongCat-Image, FIBO, JoyImage and Qwen-Image-Layered: parameters as the real classes have them,
and work as torch counts it."""

from __future__ import annotations

import json
from functools import partial

import diffusers
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from recast_probe.cost_model import (
    PUBLISHED,
    SOURCES,
    RunPlan,
    bound,
    config_from_dict,
    published_config,
    step_work,
)
from recast_probe.cost_model.published_configs import CONFIGS
from recast_probe.errors import InputError

# no two sizes alike
FLUX_LIKE = {
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 24,
    "num_attention_heads": 5,
    "in_channels": 20,
    "joint_attention_dim": 96,
    "axes_dims_rope": [4, 10, 10],
    "patch_size": 1,
}
LONGCAT = FLUX_LIKE | {
    "_class_name": "LongCatImageTransformer2DModel",
    "pooled_projection_dim": 72,
}
FIBO = FLUX_LIKE | {
    "_class_name": "BriaFiboTransformer2DModel",
    "text_encoder_dim": 36,
    "guidance_embeds": False,
}
JOY = {
    "_class_name": "JoyImageEditTransformer3DModel",
    "hidden_size": 120,
    "in_channels": 4,
    "mlp_width_ratio": 2.5,
    "num_attention_heads": 5,
    "num_layers": 3,
    "out_channels": 4,
    "patch_size": [1, 2, 2],
    "rope_dim_list": [4, 10, 10],
    "text_dim": 96,
}
LAYERED = {
    "_class_name": "QwenImageTransformer2DModel",
    "attention_head_dim": 24,
    "axes_dims_rope": [4, 10, 10],
    "guidance_embeds": False,
    "in_channels": 32,
    "joint_attention_dim": 96,
    "num_attention_heads": 5,
    "num_layers": 3,
    "out_channels": 8,
    "patch_size": 2,
    "use_additional_t_cond": True,
    "use_layer3d_rope": True,
}


def build(config):
    with torch.device("meta"):
        return getattr(diffusers, config["_class_name"]).from_config(config)


def inputs_of(config, text, rows, columns) -> dict:
    """Of two images of rows x columns tokens."""
    found = {"timestep": torch.empty(1)}
    width = config.get("joint_attention_dim") or config["text_dim"]
    found["encoder_hidden_states"] = torch.empty(1, text, width)
    tokens = 2 * rows * columns
    if "hidden_size" in config:
        size = (1, 2, config["in_channels"], 1, 2 * rows, 2 * columns)
        return found | {"hidden_states": torch.empty(size)}
    found["hidden_states"] = torch.empty(1, tokens, config["in_channels"])
    if config["_class_name"].startswith("Qwen"):
        shapes = [[(1, rows, columns)] * 2]
        condition = torch.zeros(1, dtype=torch.long)
        return found | {"img_shapes": shapes, "additional_t_cond": condition}
    found |= {"txt_ids": torch.empty(text, 3), "img_ids": torch.empty(tokens, 3)}
    if "text_encoder_dim" in config:
        layers = config["num_layers"] + config["num_single_layers"]
        captions = [torch.empty(1, text, config["text_encoder_dim"]) for _ in range(layers)]
        found["text_encoder_layers"] = captions
    return found


@pytest.mark.parametrize("config", [LONGCAT, FIBO, JOY, LAYERED], ids=lambda c: c["_class_name"])
@pytest.mark.parametrize("tokens", [(7, 3, 3), (40, 2, 9)])
def test_torch_counts_the_same_parameters_and_work(config, tokens, monkeypatch):
    # transformers replaces it while a model is loaded; if torch's device contexts are first used
    # then, they do not know the real one for the rest of the process
    monkeypatch.setattr(torch, "linspace", partial(torch.linspace, device="meta"))
    text, rows, columns = tokens
    model, found = build(config), config_from_dict(config)
    assert found.parameters == sum(each.numel() for each in model.parameters())
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**inputs_of(config, text, rows, columns))
    work = step_work(found, text, rows * columns, rows * columns)
    assert counter.get_total_flops() == work.total


def test_fibo_may_embed_guidance():
    config = FIBO | {"guidance_embeds": True}
    expected = sum(each.numel() for each in build(config).parameters())
    assert config_from_dict(config).parameters == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_config_fits_its_class_and_says_where_it_is_from(name):
    config = json.loads((CONFIGS / PUBLISHED[name]).read_text())
    expected = sum(each.numel() for each in build(config).parameters())
    assert published_config(name).parameters == expected
    assert SOURCES[PUBLISHED[name]]
    full = RunPlan.full(512, 4096, 4096, 28)
    assert 1 < bound(published_config(name), full.keep(0, start=0)).speed_up < 3


def test_sizes_that_are_published_beside_the_configs():
    # the file of LongCat-Image-Edit's transformer has 12.54 GB of bfloat16
    assert published_config("longcat-image-edit").parameters * 2 / 1e9 == pytest.approx(12.54, 1e-3)
    same = published_config("qwen-image-edit")
    for name in ("qwen-image-edit-2509", "qwen-image-edit-inpaint"):
        assert published_config(name) == same
    assert published_config("qwen-image-edit-2511").modulation_linear > same.modulation_linear
    added = published_config("qwen-image-layered").parameters - same.parameters
    assert added == 2 * same.width
    assert published_config("flux-kontext-inpaint") == published_config("flux-kontext")
    assert published_config("flux2-klein-9b-inpaint") == published_config("flux2-klein-9b")


def test_what_the_arithmetic_does_not_know():
    for config in (LONGCAT, FIBO):
        with pytest.raises(InputError, match=r"patch_size=1, not 2"):
            config_from_dict(config | {"patch_size": 2})
    with pytest.raises(InputError, match="4 and 8 channels"):
        config_from_dict(JOY | {"out_channels": 8})
    with pytest.raises(InputError, match="120 by 7"):
        config_from_dict(JOY | {"num_attention_heads": 7})
    for config, lost in ((JOY, "hidden_size"), (JOY, "patch_size"), (FIBO, "text_encoder_dim")):
        with pytest.raises(InputError, match=lost):
            config_from_dict({key: value for key, value in config.items() if key != lost})
    for wrong in ({"num_attention_heads": 0}, {"patch_size": 2}, {"hidden_size": "wide"}):
        with pytest.raises(InputError, match=r"config"):
            config_from_dict(JOY | wrong)
