"""An accelerated pipeline is asked before every image whether it is still as it was."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from diffusers import FluxKontextPipeline
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.interventions import ReuseReference
from recast_probe.probe import Probe
from recast_probe.testing import tiny
from tests.pipeline_changes import (
    FORWARDS,
    PROCESSORS,
    Interrupt,
    cache_configs,
    cached,
    replaced,
    wrapping,
)

STEPS = 3
CACHES = list(cache_configs(None))
METHODS = ("reuse", "recast")


@pytest.fixture(scope="module")
def pipe():
    """A pipeline of its own, since it is changed and changed back."""
    return tiny.build_tiny_pipeline()


@pytest.fixture(scope="module")
def make(image):
    """Calls a pipeline itself, as a user would."""
    arguments_of = Probe(tiny.build_tiny_pipeline()).pipeline_arguments

    def made(pipe, **settings):
        arguments = arguments_of(image, "fox", steps=settings.pop("steps", STEPS))
        return np.asarray(pipe(**arguments, **settings).images[0])

    return made


@pytest.mark.parametrize("name", CACHES)
def test_a_feature_cache_is_named_before_anything_is_put_in(pipe, make, name):
    before = make(pipe)
    with cached(pipe, name), pytest.raises(UnsupportedPipelineError, match="disable_cache"):
        accelerate(pipe)
    np.testing.assert_array_equal(make(pipe), before)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CACHES)
def test_so_is_one_that_is_switched_on_later(pipe, make, name, method):
    with accelerate(pipe, method):
        expected = make(pipe)
        with cached(pipe, name), pytest.raises(UnsupportedPipelineError, match="disable_cache"):
            make(pipe)
        np.testing.assert_array_equal(make(pipe), expected)


@pytest.mark.parametrize("method", METHODS)
def test_processors_that_are_replaced_later_are_named(pipe, make, method):
    plain = make(pipe)
    with accelerate(pipe, method):
        pipe.transformer.set_attn_processor(FluxAttnProcessor())
        with pytest.raises(UnsupportedPipelineError, match="processors were replaced"):
            make(pipe)
    np.testing.assert_array_equal(make(pipe), plain)


def test_so_are_some_of_them_and_in_the_middle_of_an_image(pipe, make):
    def replace(pipe, step, _, given):
        pipe.transformer.transformer_blocks[1].attn.processor = FluxAttnProcessor()
        return given

    plain = make(pipe)
    with (
        accelerate(pipe),
        pytest.raises(UnsupportedPipelineError, match="1 of 5 attention processors were"),
    ):
        make(pipe, callback_on_step_end=replace)
    np.testing.assert_array_equal(make(pipe), plain)


@pytest.mark.parametrize("change", PROCESSORS)
def test_behaviour_that_is_patched_later_is_refused(pipe, make, change):
    with accelerate(pipe):
        expected = make(pipe)
        with PROCESSORS[change](pipe), pytest.raises(UnsupportedPipelineError):
            make(pipe)
        np.testing.assert_array_equal(make(pipe), expected)


@pytest.mark.parametrize("change", FORWARDS)
def test_a_forward_that_is_replaced_is_refused_before_and_after(pipe, make, change):
    with FORWARDS[change](pipe), pytest.raises(UnsupportedPipelineError, match="was replaced by"):
        accelerate(pipe)
    with (
        accelerate(pipe),
        FORWARDS[change](pipe),
        pytest.raises(UnsupportedPipelineError, match="was replaced by"),
    ):
        make(pipe)


def test_another_transformer_is_not_reported_as_accelerated(make):
    pipe, other = tiny.build_tiny_pipeline(), tiny.build_tiny_pipeline(seed=1)
    own, pipe.transformer = pipe.transformer, other.transformer
    plain, pipe.transformer = make(pipe), own
    accelerated = accelerate(pipe)
    make(pipe)
    pipe.transformer = other.transformer
    np.testing.assert_array_equal(make(pipe), plain)
    with pytest.raises(UnsupportedPipelineError, match="Another transformer"):
        _ = accelerated.report
    accelerated.restore()
    pipe.transformer = own
    with accelerate(pipe) as again:
        make(pipe)
    assert again.report is not None


def test_another_pipeline_that_shares_the_transformer_is_refused(pipe, make):
    other = FluxKontextPipeline(**pipe.components)
    other.set_progress_bar_config(disable=True)
    plain = make(other)
    with accelerate(pipe):
        expected = make(pipe)
        with pytest.raises(UnsupportedPipelineError, match="shares it has called it"):
            make(other)
        np.testing.assert_array_equal(make(pipe), expected)
    np.testing.assert_array_equal(make(other), plain)


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupted_image_leaves_nothing_for_the_next(pipe, make, method, step):
    with accelerate(pipe, method):
        expected = make(pipe)
        make(pipe, callback_on_step_end=Interrupt(step))
        np.testing.assert_array_equal(make(pipe), expected)


def test_two_threads_are_refused_and_never_wrong(pipe, make):
    interventions = [ReuseReference()]
    outcomes: list[object] = []
    start = threading.Barrier(2)

    def call() -> None:
        start.wait()
        try:
            outcomes.append(make(pipe, steps=6))
        except Exception as error:
            outcomes.append(error)

    with accelerate(pipe, interventions=interventions):
        expected = make(pipe, steps=6)
        for _ in range(3):
            threads = [threading.Thread(target=call) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        np.testing.assert_array_equal(make(pipe, steps=6), expected)
    assert len(outcomes) == 6
    images = [each for each in outcomes if isinstance(each, np.ndarray)]
    for each in images:
        np.testing.assert_array_equal(each, expected)
    errors = [each for each in outcomes if isinstance(each, Exception)]
    assert any(isinstance(each, VerificationError) for each in errors), outcomes


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_thread_that_begins_within_another_ones_image(pipe, make, wrapped):
    """Both are refused; also where the pipeline's own call was wrapped, under whatever name."""
    entered, refused = threading.Event(), threading.Event()
    outcomes: dict[str, object] = {}
    own = type(pipe).__call__

    def wait(pipe, step, timestep, tensors):
        if step == 1:
            entered.set()
            assert refused.wait(30)
        return tensors

    def call(name: str, **settings) -> None:
        try:
            outcomes[name] = make(pipe, **settings)
        except VerificationError as error:
            outcomes[name] = error

    with (
        replaced(type(pipe), "__call__", wrapping(own) if wrapped else own),
        accelerate(pipe, interventions=[ReuseReference()]),
    ):
        expected = make(pipe)
        first = threading.Thread(
            target=call, args=("first",), kwargs={"callback_on_step_end": wait}
        )
        first.start()
        assert entered.wait(30)
        call("second")
        refused.set()
        first.join(30)
        np.testing.assert_array_equal(make(pipe), expected)
    for outcome in outcomes.values():
        assert "two threads" in str(outcome), outcomes
    assert len(outcomes) == 2
