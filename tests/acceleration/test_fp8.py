"""FP8 linears: the weights come back, and what is missing is said."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from recast_probe.acceleration import fp8
from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError
from recast_probe.probe import Probe
from recast_probe.testing import tiny


def halve(module: torch.nn.Linear) -> None:
    """Stands in for torchao, which needs a GPU: exchanges the weight as it does."""
    module.weight = torch.nn.Parameter(module.weight.detach() / 2, requires_grad=False)


def test_the_original_weights_come_back(monkeypatch, image):
    monkeypatch.setattr(fp8, "_check_device", lambda linears: None)
    monkeypatch.setattr(fp8, "_torchao", lambda: halve)
    pipe = tiny.build_tiny_pipeline()
    arguments = Probe(tiny.build_tiny_pipeline()).pipeline_arguments
    before = {name: each.clone() for name, each in pipe.transformer.state_dict().items()}
    modules = list(pipe.transformer.modules())
    with accelerate(pipe, "full", fp8=True) as accelerated:
        changed = {
            name
            for name, each in pipe.transformer.state_dict().items()
            if not torch.equal(each, before[name])
        }
        assert "transformer_blocks.0.attn.to_q.weight" in changed
        assert "x_embedder.weight" not in changed
        pipe(**arguments(image, "fox", steps=1))
        assert accelerated.report["fp8_linears"]
    assert list(pipe.transformer.modules()) == modules
    for name, each in pipe.transformer.state_dict().items():
        assert torch.equal(each, before[name])


def test_an_error_on_the_way_restores_everything(monkeypatch, image, plain):
    def fail(module):
        halve(module)
        if module.out_features == tiny.HEADS * tiny.HEAD_DIMENSION * 4:
            raise RuntimeError("no kernel")

    monkeypatch.setattr(fp8, "_check_device", lambda linears: None)
    monkeypatch.setattr(fp8, "_torchao", lambda: fail)
    pipe = tiny.build_tiny_pipeline()
    with pytest.raises(RuntimeError, match="no kernel"):
        accelerate(pipe, fp8=True)
    settings = Probe(pipe).pipeline_arguments(image, "fox", steps=2)
    np.testing.assert_array_equal(
        np.asarray(pipe(**settings).images[0]), plain(image, "fox", steps=2)
    )


def test_what_is_missing_is_said(pipeline):
    with pytest.raises(InputError, match="on one CUDA device, but it is on cpu"):
        accelerate(pipeline, fp8=True)
    Probe(pipeline)  # nothing was left behind


@pytest.mark.skipif(importlib.util.find_spec("torchao") is not None, reason="torchao is there")
def test_without_torchao():
    with pytest.raises(InputError, match=r"pip install .*'\.\[gpu\]'"):
        fp8._torchao()
