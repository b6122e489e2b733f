"""Hooked processors are made of the source of a pipeline's own, once for each class."""

from __future__ import annotations

import ast
import inspect

import pytest
import torch
import torch._dynamo.testing
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers import transformer_flux, transformer_flux2
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import UnsupportedPipelineError
from recast_probe.pipelines.hooked_processor import hooked
from recast_probe.testing import tiny, tiny_flux2, tiny_qwen


class InALoop:
    def __call__(self, attn, query):
        for _ in range(2):
            query = dispatch_attention_fn(query, query, query)
        return query


class HandedOn:
    def __call__(self, attn, query):
        attend = dispatch_attention_fn
        return attend(query, query, query)


class Scaled:
    """One that has a method and an attribute of its own, and defaults."""

    def __init__(self, factor):
        self.factor = factor

    def scaled(self, query):
        return query * self.factor

    def __call__(self, attn, query, extra=1, *, more=2):
        return dispatch_attention_fn(self.scaled(query), query, query) + extra + more


class WithParent(FluxAttnProcessor):
    def __init__(self):
        super().__init__()

    def __call__(self, attn, query):
        assert super().__init__() is None
        return dispatch_attention_fn(query, query, query)


def without_source():
    names = {"dispatch_attention_fn": dispatch_attention_fn}
    exec(
        "def __call__(self, attn, query):\n  return dispatch_attention_fn(query, query, query)",
        names,
    )
    return type("Made", (), {"__call__": names["__call__"]})()


def test_one_class_serves_all_blocks_and_is_the_processors_own():
    first, second = hooked(FluxAttnProcessor()), hooked(FluxAttnProcessor())
    assert type(first) is type(second)
    assert type(first) is not type(hooked(transformer_flux2.Flux2AttnProcessor()))
    assert isinstance(first, FluxAttnProcessor)
    own = FluxAttnProcessor.__call__
    made = type(first).__call__
    assert made.__globals__ is own.__globals__
    assert inspect.signature(made).parameters.keys() == inspect.signature(own).parameters.keys()


def test_a_processor_keeps_its_attributes_methods_and_defaults():
    query = torch.randn(1, 5, 2, 8)
    own = Scaled(3)
    processor = hooked(own)
    assert torch.equal(processor(None, query), own(None, query))
    assert torch.equal(processor(None, query, 5, more=7), own(None, query, 5, more=7))
    seen = []
    processor.attend = lambda given, options: seen.append((given, options)) or given[2]
    assert torch.equal(processor(None, query), query + 1 + 2)
    assert torch.equal(seen[0][0][0], query * 3)
    assert seen[0][1] == {}


def test_an_attention_backend_that_was_set_is_handed_on():
    original = FluxAttnProcessor()
    original._attention_backend = "_native_math"
    assert hooked(original)._attention_backend == "_native_math"


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        (
            lambda: transformer_flux.FluxIPAdapterAttnProcessor(32, 8),
            "FluxIPAdapterAttnProcessor.* in 2 places",
        ),
        (InALoop, "InALoop.* in 1 places and not in one that is passed once"),
        (HandedOn, "HandedOn.* in 1 places and not in one"),
        (object, "source of .* cannot be had"),
        (without_source, "source of __call__ .* cannot be had"),
        (WithParent, "WithParent.*needs its surroundings"),
    ],
)
def test_what_cannot_be_hooked_is_refused_in_words(processor, said):
    with pytest.raises(UnsupportedPipelineError, match=said + ".*nnsight only"):
        hooked(processor())


def test_a_source_that_was_changed_since_is_refused(monkeypatch):
    other = inspect.getsource(FluxAttnProcessor.__call__).replace(
        "sequence_dim=1", "sequence_dim=2"
    )
    ast.parse("class K:\n" + other)
    kind = type("Changed", (FluxAttnProcessor,), {})
    monkeypatch.setattr(inspect, "getsource", lambda _: other)
    with pytest.raises(UnsupportedPipelineError, match="file was changed since"):
        hooked(kind())


def test_compiled_blocks_of_qwen_share_one_graph():
    torch._dynamo.reset()
    pipe, counter = tiny_qwen.build_tiny_pipeline(), torch._dynamo.testing.CompileCounter()
    image = tiny.tiny_image()
    probe_arguments = {"num_inference_steps": 3, "output_type": "np", **tiny_qwen.SIZE}

    def call():
        generator = torch.Generator().manual_seed(0)
        return pipe(image, "fox", generator=generator, **probe_arguments).images

    wanted = call()
    pipe.transformer.compile_repeated_blocks(backend=counter, fullgraph=True, dynamic=False)
    with accelerate(pipe, "full"):
        found = call()
    assert (found == wanted).all()
    assert counter.frame_count == 1
    torch._dynamo.reset()


class SeveralPlaces:
    def __call__(self, attn, query, mode="helper"):
        if mode == "own":
            return dispatch_attention_fn(query, query, query)
        for _ in range(2):
            query = dispatch_attention_fn(query, query, query)
        return query


def test_a_processor_of_diffusers_that_attends_through_a_function_beside_it():
    processor = hooked(
        transformer_flux2.Flux2KVAttnProcessor(),
        [
            ("dispatch_attention_fn_0",),
            ("_flux2_kv_causal_attention_0", "dispatch_attention_fn_2"),
            ("_flux2_kv_causal_attention_1", "dispatch_attention_fn_1"),
        ],
    )
    pipe = tiny_flux2.build_klein_kv()
    attn = pipe.transformer.transformer_blocks[0].attn
    states, text = torch.randn(1, 20, 32), torch.randn(1, 5, 32)
    cache = transformer_flux2.Flux2KVLayerCache()
    given = {"kv_cache": cache, "kv_cache_mode": "extract", "num_ref_tokens": 4}
    cached = {**given, "kv_cache_mode": "cached"}
    own = transformer_flux2.Flux2KVAttnProcessor()
    seen = []
    processor.attend = lambda found, _: seen.append(found) or found[0] * 0
    for site, options, queries in (
        ("dispatch_attention_fn_0", {}, 25),
        ("_flux2_kv_causal_attention_0/dispatch_attention_fn_2", given, 21),
        ("_flux2_kv_causal_attention_1/dispatch_attention_fn_1", cached, 25),
    ):
        seen.clear()
        plain = own(attn, states, text, **options)[0]
        processor.site = "elsewhere"
        assert torch.equal(processor(attn, states, text, **options)[0], plain)
        assert not seen
        processor.site = site
        assert not torch.equal(processor(attn, states, text, **options)[0], plain)
        assert [found[0].shape[1] for found in seen] == [queries]


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ([("dispatch_attention_fn_0",), ("dispatch_attention_fn_2",)], "in 2 places"),
        ([("dispatch_attention_fn_0",), ("attend_0", "dispatch_attention_fn_0")], "in 0 places"),
    ],
)
def test_places_that_are_not_there_are_refused(sites, said):
    with pytest.raises(UnsupportedPipelineError, match=said):
        hooked(SeveralPlaces(), sites)


def test_the_place_that_is_named_is_stepped_into():
    sites = [("dispatch_attention_fn_0",), ("dispatch_attention_fn_1",)]
    processor, query = hooked(SeveralPlaces(), sites), torch.randn(1, 5, 2, 8)
    seen = []
    processor.attend = lambda given, options: seen.append(given) or given[0]
    processor.site = "dispatch_attention_fn_0"
    assert torch.equal(processor(None, query, "own"), query)
    processor(None, query)
    assert len(seen) == 1
