"""What the family predicts is what the unmodified pipeline does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from diffusers.pipelines.flux.pipeline_flux_kontext import PREFERRED_KONTEXT_RESOLUTIONS
from hypothesis import given, settings
from hypothesis import strategies as st

from recast_probe.errors import VerificationError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines import FAMILIES, find_family, supported_pipelines
from recast_probe.testing import tiny


@pytest.fixture(scope="module")
def family(pipeline):
    return find_family(pipeline)


@pytest.fixture(scope="module")
def first_inputs(pipeline):
    """The inputs of the first transformer call of a plain pipeline run."""

    class SeenError(Exception):
        pass

    def run(**arguments):
        found = {}

        def note(module, positional, inputs):
            found.update(inputs)
            raise SeenError

        hook = pipeline.transformer.register_forward_pre_hook(note, with_kwargs=True)
        try:
            pipeline(generator=torch.Generator().manual_seed(0), **arguments)
        except SeenError:
            return found
        finally:
            hook.remove()
        raise AssertionError("the transformer was not called")

    return run


def test_one_family_per_name_and_per_pipeline():
    for names in ([family.name for family in FAMILIES], supported_pipelines()):
        assert len(set(names)) == len(names) >= len(FAMILIES)


def test_subclasses_of_a_known_pipeline_are_supported(pipeline):
    class Own(FluxKontextPipeline):
        pass

    assert find_family(Own(**pipeline.components)).name == "flux-kontext"


def test_blocks_in_the_order_in_which_they_run(pipeline, family):
    calls = family.attention_calls()
    assert [call.kind for call in calls] == ["double"] * 2 + ["single"] * 3
    assert calls[2].module == "single_transformer_blocks.0.attn"
    assert family.heads == 2


def test_arguments_follow_from_the_models_config(pipeline, family):
    assert family.call_arguments({}) == {
        "height": 64,
        "width": 64,
        "max_area": 64 * 64,
        "max_sequence_length": tiny.TEXT_TOKENS,
        "_auto_resize": False,
    }
    large = family.call_arguments({"max_area": 1024 * 1024})
    assert large == {**family.call_arguments({}), "max_area": 1024 * 1024}
    assert family.call_arguments({"width": 96})["width"] == 96


@settings(max_examples=25, deadline=None)
@given(width=st.integers(20, 300), height=st.integers(20, 300))
def test_the_predicted_layout_is_the_observed_one(pipeline, family, first_inputs, width, height):
    image = tiny.tiny_image(width, height)
    arguments = family.call_arguments({})
    reference = family.prepare_reference(image, {})
    predicted = family.predict_layout(reference, arguments)
    inputs = first_inputs(image=reference, prompt="fox", num_inference_steps=1, **arguments)
    assert family.observed_layout(inputs) == predicted
    grid = predicted.references[0]
    assert reference.size == (grid.columns * 16, grid.rows * 16)
    assert grid.size <= 16 or 1 in (grid.rows, grid.columns)


@pytest.mark.parametrize("size", [(300, 900), (64, 64), (100, 90)])
def test_preferred_sizes_at_one_megapixel(pipeline, family, first_inputs, size):
    """Only the sizes are checked; the transformer does not run."""
    image = tiny.tiny_image(*size)
    overrides = {"_auto_resize": True}
    arguments = family.call_arguments(overrides)
    reference = family.prepare_reference(image, overrides)
    assert reference is image
    predicted = family.predict_layout(reference, arguments)
    grid = predicted.references[0]
    assert (grid.columns * 16, grid.rows * 16) in [
        (width // 16 * 16, height // 16 * 16) for width, height in PREFERRED_KONTEXT_RESOLUTIONS
    ]
    inputs = first_inputs(image=reference, prompt="fox", num_inference_steps=1, **arguments)
    assert family.observed_layout(inputs) == predicted


def test_the_own_rule_of_the_pipeline_on_request(pipeline, family, first_inputs):
    image = tiny.tiny_image(100, 40)
    overrides = {"_auto_resize": False}
    arguments = family.call_arguments(overrides)
    reference = family.prepare_reference(image, overrides)
    predicted = family.predict_layout(reference, arguments)
    assert predicted.references == (Grid(2, 6),)
    inputs = first_inputs(image=reference, prompt="fox", num_inference_steps=1, **arguments)
    assert family.observed_layout(inputs) == predicted


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_predicted_schedule_is_the_observed_one(pipeline, family, steps):
    arguments = family.call_arguments({"num_inference_steps": steps})
    layout = family.predict_layout(None, arguments)
    schedule = family.predict_schedule(layout, arguments)
    pipeline(prompt="fox", generator=torch.Generator().manual_seed(0), **arguments)
    np.testing.assert_allclose(schedule.timesteps, pipeline.scheduler.timesteps, rtol=1e-6)
    np.testing.assert_allclose(schedule.sigmas, pipeline.scheduler.sigmas[:-1], rtol=1e-6)
    assert len(schedule) == steps
    assert schedule.sigmas[0] == 1


def ids(*grids: tuple[int, int, int]) -> torch.Tensor:
    places = [
        (image, row, column)
        for image, rows, columns in grids
        for row in range(rows)
        for column in range(columns)
    ]
    return torch.tensor(places, dtype=torch.float32)


def test_several_references_and_other_orders(family):
    inputs = {
        "img_ids": ids((0, 2, 3), (1, 4, 1), (2, 2, 2)),
        "encoder_hidden_states": torch.zeros(1, 5, 8),
    }
    assert family.observed_layout(inputs) == TokenLayout(
        text=5, generation=Grid(2, 3), references=(Grid(4, 1), Grid(2, 2))
    )
    for broken in (ids((0, 2, 3), (1, 2, 2))[:-1], ids((1, 2, 2), (0, 2, 3))):
        with pytest.raises(VerificationError, match="raster"):
            family.observed_layout({**inputs, "img_ids": broken})


def test_masks_go_the_way_of_the_reference(probe):
    mask = np.zeros((48, 96))
    mask[:, 48:] = 1
    grid = probe.reference_mask(mask, tiny.tiny_image(96, 48))
    assert grid.shape == (2, 5)
    assert grid.dtype == bool
    np.testing.assert_array_equal(grid[0, [0, 1, 3, 4]], [False, False, True, True])
