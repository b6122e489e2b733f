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
from recast_probe.testing import tiny, tiny_qwen


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
