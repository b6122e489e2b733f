"""A rehearsed run is the run: layouts, branches, text embeddings and steps of every family."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from recast_probe import Probe
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.pipelines import family_of_class
from recast_probe.pipelines.base import Family
from recast_probe.pipelines.rehearsal import rehearse
from recast_probe.pipelines.rehearsed import Rehearsed
from recast_probe.runs.call import PipelineCall, make_call
from recast_probe.testing import tiny
from recast_probe.testing.conformance import Case, supported_cases

# those that rehearse anyway have nothing to be compared with
CASES = {
    case.name: case
    for case in supported_cases()
    if not issubclass(family_of_class(case.name.split()[0]), Rehearsed)
}
SIZES: dict[str, list[dict[str, Any]]] = {
    "QwenImageEditPipeline": [{}, {"height": 384, "width": 256}],
    "QwenImageEditPlusPipeline": [{}, {"height": 384, "width": 256}],
    "FluxKontextInpaintPipeline": [{}, {"strength": 0.5}],
    "Flux2KleinInpaintPipeline": [{}, {"strength": 0.5}],
    "LongCatImageEditPipeline": [{}, {"sigmas": [1.0, 0.7, 0.4, 0.1]}],
    "QwenImageLayeredPipeline": [{}, {"layers": 2}],
    "QwenImageEditInpaintPipeline": [{}, {"strength": 0.5}],
}


def predicts_itself(name: str) -> bool:
    kind = family_of_class(name)
    return kind is None or not issubclass(kind, Rehearsed)


@pytest.fixture(scope="module", params=filter(predicts_itself, CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def rehearsed(family: Family) -> Any:
    """The same family, which rehearses in place of what it predicts itself."""
    return type("Other", (Rehearsed, type(family)), {})(family.pipe)


def call_of(case: Case, **more: Any) -> PipelineCall:
    settings = {**case.settings, **more}
    return make_call(case.probe.family, case.image, case.prompt, 4, 0, settings)


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("size", [0, 1])
def test_rehearsal_agrees_with_what_the_family_predicts(
    case: Case, size: int, guided: bool
) -> None:
    family = case.probe.family
    if isinstance(family, Rehearsed):
        pytest.skip(f"{case.name} has no prediction of its own")
    other = rehearsed(family)
    if guided and "true guidance" in case.refuses:
        pytest.skip(f"{case.name} has no guidance of two calls")
    sizes = SIZES.get(case.name, [{}, {"height": 96, "width": 48}])[size]
    # klein is guided by default
    off = {"guidance_scale": 1.0} if "guidance_scale" in case.guidance else {}
    call = call_of(case, **sizes, **(case.guidance if guided else off))
    arguments = call.arguments
    assert other.predict_layout(case.image, arguments) == call.layout
    assert other.branch_names(arguments) == family.branch_names(arguments)
    assert len(other.branch_names(arguments)) == 1 + guided
    assert other.branch_layouts(call.layout, arguments) == family.branch_layouts(
        call.layout, arguments
    )
    expected, found = family.branch_embeddings(arguments), other.branch_embeddings(arguments)
    assert found.keys() == expected.keys()
    for branch, embedding in expected.items():
        assert (embedding is None) == (found[branch] is None)
        assert embedding is None or torch.equal(embedding, found[branch])
    schedule = other.predict_schedule(call.layout, arguments)
    # the family's are computed in float64 from the same float32 numbers
    np.testing.assert_allclose(schedule.timesteps, call.schedule.timesteps, rtol=1e-6)
    np.testing.assert_allclose(schedule.sigmas, call.schedule.sigmas, rtol=1e-6)
    assert schedule.stochastic == call.schedule.stochastic


def test_pipeline_and_random_state_are_as_before() -> None:
    pipe = tiny.build_tiny_pipeline()
    arguments = Probe(pipe).pipeline_arguments(tiny.tiny_image(), "a cat", 3)
    arguments.pop("generator")
    before = dict(vars(pipe)), dict(vars(pipe.transformer)), dict(vars(pipe.scheduler))
    random = torch.get_rng_state()
    seen: list[int] = []
    pipe.transformer.register_forward_hook(lambda *_: seen.append(1)).remove()
    zeros = Probe(pipe).family.rehearsed_output
    found = rehearse(pipe, {**arguments, "callback_on_step_end": lambda *_: seen.append(2)}, zeros)
    assert len(found.calls) == 3
    with pytest.raises(InputError, match="ValueError"):
        rehearse(pipe, {**arguments, "max_sequence_length": 9999}, zeros)
    with pytest.raises(KeyboardInterrupt):
        rehearse(pipe, arguments, interrupted)
    assert seen == []
    assert torch.equal(random, torch.get_rng_state())
    after = vars(pipe), vars(pipe.transformer), vars(pipe.scheduler)
    for old, new in zip(before, after, strict=True):
        assert list(old) == list(new)
        assert all(old[name] is new[name] for name in old)


def interrupted(inputs: Any) -> Any:
    raise KeyboardInterrupt


def test_later_calls_hold_their_timestep_alone() -> None:
    pipe = tiny.build_tiny_pipeline()
    arguments = {"prompt": "a cat", "image": tiny.tiny_image(), "num_inference_steps": 3}
    more = {"max_area": 4096, "negative_prompt": "dog", "true_cfg_scale": 2.0}
    zeros = Probe(pipe).family.rehearsed_output
    found = rehearse(pipe, {**arguments, **more, "max_sequence_length": 8}, zeros)
    assert (len(found.calls), found.per_step, len(found.schedule)) == (6, 2, 3)
    assert [list(each) for each in found.calls[2:]] == [["timestep"]] * 4
    assert {"hidden_states", "img_ids", "encoder_hidden_states"} <= found.calls[1].keys()


def test_changed_pipeline_is_rehearsed_again() -> None:
    case = CASES["FluxKontextPipeline"]
    pipe = tiny.build_tiny_pipeline()
    explicit, family = Probe(pipe).family, rehearsed(Probe(pipe).family)
    arguments = make_call(explicit, case.image, "a cat", 3, 0, dict(case.guidance)).arguments
    layout = family.predict_layout(case.image, arguments)
    first = family.rehearsal(arguments)
    assert family.rehearsal(arguments) is first
    # equal arguments that are not the same
    assert family.rehearsal(dict(arguments)) is not first
    before = family.branch_embeddings(arguments)["conditional"]
    with torch.no_grad():
        pipe.text_encoder_2.shared.weight.mul_(3)
    assert not torch.equal(family.branch_embeddings(arguments)["conditional"], before)
    shifted = family.predict_schedule(layout, arguments).timesteps
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, use_dynamic_shifting=False, shift=1.0
    )
    changed = family.predict_schedule(layout, arguments).timesteps
    assert np.abs(shifted - changed).max() > 1
    arguments["prompt"] = "another cat"
    assert not torch.equal(family.branch_embeddings(arguments)["conditional"], before)


def test_several_prompts_embeddings_and_no_reference() -> None:
    probe = CASES["FluxKontextPipeline"].probe
    family = rehearsed(probe.family)
    call = make_call(probe.family, None, ["a cat", "a dog"], 2, 0, {})
    assert family.predict_layout(None, call.arguments) == call.layout
    assert call.layout.references == ()
    assert family.count_prompts(call.arguments) == 2
    embeddings, pooled, _ = probe.pipe.encode_prompt("a cat", None, max_sequence_length=12)
    given = {"prompt_embeds": embeddings, "pooled_prompt_embeds": pooled}
    call = make_call(probe.family, tiny.tiny_image(), None, 2, 0, given)
    assert family.predict_layout(None, call.arguments) == call.layout
    assert family.count_prompts(call.arguments) == 1


def test_noise_of_the_scheduler_is_told() -> None:
    from diffusers import FlowMatchLCMScheduler

    pipe = tiny.build_tiny_pipeline()
    config = {**pipe.scheduler.config, "use_dynamic_shifting": False}
    pipe.scheduler = FlowMatchLCMScheduler.from_config(config)
    probe = Probe(pipe)
    call = make_call(probe.family, tiny.tiny_image(), "a cat", 3, 0, {})
    assert call.schedule.stochastic
    assert rehearsed(probe.family).predict_schedule(call.layout, call.arguments).stochastic


def test_rows_that_are_no_known_branches_are_refused() -> None:
    family = rehearsed(CASES["FluxKontextPipeline"].probe.family)
    call = call_of(CASES["FluxKontextPipeline"], **CASES["FluxKontextPipeline"].guidance)
    family.called = ("conditional",)
    with pytest.raises(UnsupportedPipelineError, match="2 times a step with 1 rows"):
        family.predict_layout(None, call.arguments)
