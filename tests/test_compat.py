"""Every name that other libraries do not promise is still there, and means what it is read for."""

from __future__ import annotations

import accelerate
import pytest
import torch
from accelerate.hooks import AlignDevicesHook
from diffusers import (
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxKontextPipeline,
    FluxPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    TaylorSeerCacheConfig,
)
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.models import attention_dispatch
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.transformers import transformer_flux, transformer_flux2
from diffusers.models.transformers import transformer_qwenimage as qwen
from nnsight import NNsight

from recast_probe._utils import compat
from recast_probe.testing import tiny

PIPELINES = (
    FluxPipeline,
    FluxKontextPipeline,
    Flux2Pipeline,
    Flux2KleinPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
)
PROCESSORS = (
    transformer_flux.FluxAttnProcessor,
    transformer_flux.FluxIPAdapterAttnProcessor,
    transformer_flux2.Flux2AttnProcessor,
    transformer_flux2.Flux2ParallelSelfAttnProcessor,
    qwen.QwenDoubleStreamAttnProcessor2_0,
)
# used where they stand, since one place alone needs them
NAMES = [
    *((kind, name) for kind in PIPELINES for name in ("_execution_device", "interrupt")),
    *((kind, "_callback_tensor_inputs") for kind in PIPELINES),
    *((kind, "_attention_backend") for kind in PROCESSORS),
    (CacheMixin, "_cache_config"),
    (FluxKontextPipeline, "_pack_latents"),
    (attention_dispatch._AttentionBackendRegistry, "_backends"),
    (attention_dispatch._AttentionBackendRegistry, "get_active_backend"),
    (qwen.QwenImageTransformerBlock, "_modulate"),
    (torch, "_fused_sdp_choice"),
    (torch.cpu, "_is_amx_tile_supported"),
    (torch.cpu, "_is_amx_fp16_supported"),
    (torch._C._nn, "scaled_dot_product_attention"),
    (torch.nn.Module(), "_compiled_call_impl"),
    (torch.nn.Module(), "_forward_pre_hooks"),
    (torch.nn.Module(), "_forward_hooks"),
    (torch.nn.modules.module, "_global_forward_pre_hooks"),
    (torch.nn.modules.module, "_global_forward_hooks"),
    *(
        (torch.ops.aten, f"_scaled_dot_product_{kernel}_attention{place}")
        for kernel, place in [
            ("flash", ""),
            ("flash", "_for_cpu"),
            ("efficient", ""),
            ("cudnn", ""),
        ]
    ),
]


@pytest.mark.parametrize(
    ("owner", "name"),
    NAMES,
    ids=[f"{getattr(owner, '__name__', type(owner).__name__)}.{name}" for owner, name in NAMES],
)
def test_a_name_is_still_there(owner, name):
    assert hasattr(owner, name), f"{owner} has no {name} in this version"


def test_attention_backends():
    assert compat.attention_backends() is attention_dispatch._AttentionBackendRegistry._backends
    assert compat.attention_backends()[attention_dispatch.AttentionBackendName.NATIVE]
    with attention_dispatch.attention_backend("_native_math"):
        assert compat.backend_name() == "_native_math"
    assert compat.backend_name(attention_dispatch.AttentionBackendName.FLASH) == "flash"
    assert compat.backend_name("native") == "native"


def test_what_set_attention_backend_sets_is_seen():
    transformer = tiny.build_tiny_pipeline().transformer
    processors = transformer.attn_processors.values()
    assert {compat.chosen_backend(each) for each in processors} == {None}
    transformer.set_attention_backend("_native_math")
    assert {compat.backend_name(compat.chosen_backend(each)) for each in processors} == {
        "_native_math"
    }
    # torch's own is the active one of the whole process again
    transformer.reset_attention_backend()


def test_a_cache_and_the_hooks_of_diffusers():
    transformer = tiny.build_tiny_pipeline().transformer
    block = transformer.transformer_blocks[0]
    assert compat.feature_cache(transformer) is None
    assert compat.hook_registry(block) is None
    assert compat.diffusers_hooks(block) == {}
    assert compat.own_forwards(block) == []
    config = TaylorSeerCacheConfig(cache_interval=2, disable_cache_before_step=1)
    transformer.enable_cache(config)
    assert compat.feature_cache(transformer) is config
    transformer.disable_cache()
    hook, own = ModelHook(), block.forward
    HookRegistry.check_if_exists_or_initialize(block).register_hook(hook, "one")
    assert compat.diffusers_hooks(block) == {"one": hook}
    assert own in compat.own_forwards(block)


def test_hooks_and_forwards_of_accelerate():
    module = torch.nn.Linear(2, 2)
    own = module.forward
    assert compat.accelerate_hook(module) is None
    accelerate.hooks.add_hook_to_module(module, AlignDevicesHook(weights_map={"weight": 1}))
    assert compat.accelerate_hook(module).weights_map == {"weight": 1}
    assert own in compat.own_forwards(module)


def test_a_pipeline():
    pipe = tiny.build_tiny_pipeline()
    assert compat.execution_device(pipe) == torch.device("cpu")
    assert "latents" in (compat.callback_tensors(pipe) or [])
    pipe._interrupt = True
    assert pipe.interrupt


@pytest.mark.parametrize("before", [None, {"leave": False}])
def test_a_quiet_pipeline_is_as_it_was_afterwards(before):
    pipe = tiny.build_tiny_pipeline()
    vars(pipe).pop("_progress_bar_config", None)
    if before is not None:
        pipe.set_progress_bar_config(**before)
    with compat.quiet(pipe):
        assert pipe.progress_bar(range(1)).disable
    assert vars(pipe).get("_progress_bar_config") == before


def test_modules_of_nnsight():
    model = NNsight(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    with model.trace(torch.ones(1, 2)):
        _ = model.output.save()
    assert compat.calls_seen(model) == 1
    assert compat.traced_module(model.get("0")) is model._module[0]


def test_compiled_modules():
    module = torch.nn.Linear(2, 2)
    assert not compat.compiled_in_place(module)
    wrapper = torch.compile(module, backend="eager")
    assert compat.before_compiling(wrapper) is module
    assert compat.before_compiling(module) is None
    module.compile(backend="eager")
    assert compat.compiled_in_place(module)


def test_hooks_of_torch():
    module = torch.nn.Linear(2, 2)
    module.register_forward_pre_hook(print)
    module.register_forward_hook(repr)
    before, after = compat.forward_hooks(module)
    assert (list(before.values()), list(after.values())) == ([print], [repr])
    handle = torch.nn.modules.module.register_module_forward_hook(str)
    before, after = compat.forward_hooks_everywhere()
    assert (list(before.values()), list(after.values())) == ([], [str])
    handle.remove()


def test_a_kernel_in_torchs_place_is_noticed(monkeypatch):
    assert compat.attends_by_torch()
    own = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: own(*a, **k)
    )
    assert not compat.attends_by_torch()
