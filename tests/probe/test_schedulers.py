"""The whole run follows from its seed, and its steps are those that the plain pipeline makes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import diffusers
import numpy as np
import pytest
import torch

from recast_probe._utils.seeding import seeded
from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.experiments.attribution import attribution
from recast_probe.experiments.text_lens import text_lens
from recast_probe.interventions import Keep
from recast_probe.testing import tiny

FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
EULER, LCM = "FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler"
UNIPC, DPM = "UniPCMultistepScheduler", "DPMSolverMultistepScheduler"
# what a pipeline that hands on sigmas runs with
SIGMAS = [
    (EULER, {"stochastic_sampling": True}),
    (EULER, {"use_karras_sigmas": True}),
    (EULER, {"use_exponential_sigmas": True}),
    (EULER, {"use_beta_sigmas": True}),
    (EULER, {"use_karras_sigmas": True, "stochastic_sampling": True}),
    (EULER, {"invert_sigmas": True}),
    (LCM, {}),
    (LCM, {"use_beta_sigmas": True}),
    (UNIPC, FLOW),
    (UNIPC, {**FLOW, "solver_order": 3}),
]
# and one that leaves them to the scheduler
OWN_SIGMAS = [
    (DPM, FLOW),
    (DPM, {**FLOW, "algorithm_type": "sde-dpmsolver++"}),
    (DPM, {**FLOW, "solver_order": 3, "solver_type": "heun"}),
    ("DPMSolverSinglestepScheduler", FLOW),
    ("DEISMultistepScheduler", FLOW),
]
REFUSED = [
    ("FlowMatchHeunDiscreteScheduler", {}),
    ("EulerDiscreteScheduler", {}),
    ("DDIMScheduler", {}),
    ("LCMScheduler", {}),
    ("KDPM2AncestralDiscreteScheduler", {}),
    (UNIPC, {}),
    (DPM, {}),
]
STOCHASTIC = [SIGMAS[0], SIGMAS[4], SIGMAS[6], SIGMAS[7], OWN_SIGMAS[1]]
QUIET = {"steps": 4, "progress": False}


@contextmanager
def scheduled(pipe, name, settings):
    """The pipeline with another scheduler, and with its own again afterwards."""
    before = pipe.scheduler
    pipe.scheduler = getattr(diffusers, name).from_config(before.config, **settings)
    try:
        yield
    finally:
        pipe.scheduler = before


@pytest.fixture(params=["kontext", "adapter"])
def either(request, probe, adapter_probe):
    return {"kontext": probe, "adapter": adapter_probe}[request.param]


@pytest.fixture(autouse=True)
def global_states_stay():
    """Whatever a test does, torch's global random state is as it was afterwards."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before)


def pixels(result):
    return np.asarray(result.image)


def plain(probe, image, seed=3, **settings):
    arguments = probe.pipeline_arguments(image, "fox", steps=4, seed=seed, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.asarray(probe.pipe(**arguments).images[0])


def check_run(probe, image):
    """The image is the plain pipeline's, whatever is read, and the schedule is the scheduler's."""
    expected = plain(probe, image)
    torch.rand(3)  # others draw numbers in between
    result = probe.generate(image, "fox", seed=3, profile=True, **QUIET)
    np.testing.assert_array_equal(pixels(result), expected)
    scheduler = probe.pipe.scheduler
    data = result.profile.dataset
    np.testing.assert_allclose(data["timestep"], scheduler.timesteps.double(), rtol=1e-6)
    np.testing.assert_allclose(data["sigma"], scheduler.sigmas[: len(data["step"])], rtol=1e-5)
    kept = Keep(range(result.profile.layout.reference_tokens))
    again = probe.generate(image, "fox", seed=3, interventions=[kept], **QUIET)
    np.testing.assert_array_equal(pixels(again), expected)


@pytest.fixture
def draws():
    """A test may draw from the global state itself."""
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize(("name", "settings"), SIGMAS)
def test_the_image_is_the_plain_pipelines(either, image, draws, name, settings):
    with scheduled(either.pipe, name, settings):
        check_run(either, image)


@pytest.mark.parametrize(("name", "settings"), OWN_SIGMAS)
def test_schedulers_that_make_their_own_sigmas(adapter_probe, image, draws, name, settings):
    with scheduled(adapter_probe.pipe, name, settings):
        check_run(adapter_probe, image)


@pytest.mark.parametrize(("name", "settings"), [OWN_SIGMAS[0], OWN_SIGMAS[4], SIGMAS[6], SIGMAS[8]])
def test_in_flux2(flux2_probe, image, draws, name, settings):
    with scheduled(flux2_probe.pipe, name, settings):
        check_run(flux2_probe, image)


@pytest.mark.parametrize(("name", "settings"), REFUSED)
def test_what_the_pipeline_does_not_run_is_refused_before_it_runs(either, image, name, settings):
    with scheduled(either.pipe, name, settings):
        with pytest.raises(InputError, match=name):
            either.generate(image, "fox", **QUIET)
        with pytest.raises(InputError, match=r"pipe\.scheduler = FlowMatchEuler"):
            either.layout(image)


@pytest.mark.parametrize(("name", "settings"), OWN_SIGMAS)
def test_kontext_hands_on_sigmas_that_these_do_not_take(probe, image, name, settings):
    with scheduled(probe.pipe, name, settings), pytest.raises(InputError, match=name):
        probe.profile(image, "fox", **QUIET)


class TwoCalls(diffusers.FlowMatchEulerDiscreteScheduler):
    """Says that it needs the transformer twice a step."""

    order = 2


class NotFinite(diffusers.FlowMatchEulerDiscreteScheduler):
    """Divides by zero somewhere."""

    def step(self, output, timestep, sample, **settings):
        return (super().step(output, timestep, sample, **settings)[0] * float("nan"),)


@pytest.mark.parametrize(
    ("kind", "message"), [(TwoCalls, "called 2 times a step"), (NotFinite, "not finite")]
)
def test_schedulers_of_others(probe, image, kind, message):
    before = probe.pipe.scheduler
    probe.pipe.scheduler = kind.from_config(before.config)
    try:
        with pytest.raises(InputError, match=f"{kind.__name__} .*{message}"):
            probe.generate(image, "fox", **QUIET)
    finally:
        probe.pipe.scheduler = before


@pytest.mark.parametrize("scheduler", [None, object(), lambda: None])
def test_what_is_no_scheduler(probe, image, scheduler):
    before = probe.pipe.scheduler
    probe.pipe.scheduler = scheduler
    try:
        with pytest.raises((InputError, UnsupportedPipelineError), match="scheduler"):
            probe.generate(image, "fox", **QUIET)
    finally:
        probe.pipe.scheduler = before


@pytest.mark.parametrize("given", [list, np.array, torch.tensor])
def test_sigmas_of_the_user(probe, image, given):
    sigmas = given([1.0, 0.7, 0.4, 0.2])
    expected = plain(probe, image, sigmas=sigmas)
    result = probe.generate(image, "fox", seed=3, sigmas=sigmas, **QUIET)
    np.testing.assert_array_equal(pixels(result), expected)
    assert probe.layout(image, sigmas=sigmas) == probe.layout(image)


def test_sigmas_that_the_pipeline_leaves_out_are_said_to_be(adapter_probe, image):
    with scheduled(adapter_probe.pipe, UNIPC, FLOW):
        found = [
            adapter_probe.generate(image, "fox", sigmas=sigmas, **QUIET)
            for sigmas in (None, [1.0, 0.9, 0.8, 0.1])
        ]
    np.testing.assert_array_equal(*map(pixels, found))
    (remark,) = found[1].provenance["remarks"]
    assert remark.startswith("sigmas has no effect")


@pytest.mark.parametrize(("name", "settings"), STOCHASTIC)
def test_seeds_tell_noise_apart_and_batches_are_refused(adapter_probe, image, name, settings):
    latents = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    with scheduled(adapter_probe.pipe, name, settings):
        first, again, other = (
            adapter_probe.generate(image, "fox", seed=seed, latents=latents, **QUIET)
            for seed in (0, 0, 1)
        )
        with pytest.raises(InputError, match=f"{name} draws noise .* the 2 prompts"):
            adapter_probe.generate(image, ["fox", "snow"], **QUIET)
    np.testing.assert_array_equal(pixels(first), pixels(again))
    # the initial noise is the same, so this is the scheduler's
    assert np.abs(pixels(first).astype(int) - pixels(other)).max() > 0
    assert any(name in remark for remark in first.provenance["remarks"])


def test_batches_of_schedulers_that_draw_nothing(probe, image):
    with scheduled(probe.pipe, UNIPC, FLOW):
        both = probe.generate(image, ["fox", "snow"], **QUIET)
        alone = probe.generate(image, "snow", **QUIET)
    assert np.abs(np.asarray(both.images[1], int) - pixels(alone)).max() <= 1


def test_every_way_to_run_leaves_the_global_state(probe, image):
    """See ``global_states_stay``; each of these draws noise in its steps."""
    with scheduled(probe.pipe, LCM, {}):
        probe.profile(image, "fox", profile_steps=1, **QUIET)
        probe.recast(image, "fox", **QUIET)
        assert probe.verify(image, "fox").passed
        probe.attention_maps(image, "fox", profile_steps=0, **QUIET)
        one = {"blocks": [0], "steps": 2, "progress": False}
        found = attribution(probe, image, "fox", **one)
        assert found.data["distance"].values > 0
        text_lens(probe, image, "fox", **one)

        def stop(*_):
            raise KeyboardInterrupt

        for attachment in ("nnsight", "hooks"):
            with pytest.raises(KeyboardInterrupt):
                probe.generate(
                    image, "fox", callback_on_step_end=stop, attachment=attachment, **QUIET
                )


def test_both_attachments_have_the_same_noise(probe, image):
    with scheduled(probe.pipe, LCM, {}):
        found = [probe.generate(image, "fox", attachment=a, **QUIET) for a in ("nnsight", "hooks")]
    np.testing.assert_array_equal(*map(pixels, found))


def test_attribution_measures_cuts_and_no_noise(probe, image):
    with scheduled(probe.pipe, EULER, {"stochastic_sampling": True}):
        found = [
            attribution(probe, image, "fox", blocks=[0, 4], steps=3, progress=False).data[
                "distance"
            ]
            for _ in range(2)
        ]
    np.testing.assert_array_equal(*found)


def test_numbers_that_are_not_finite_are_found_before_they_are_made(probe, image):
    """The plain pipeline makes a black image of these."""
    with scheduled(probe.pipe, UNIPC, {**FLOW, "solver_type": "bh1"}):
        with pytest.raises(InputError, match="not finite"):
            probe.generate(image, "fox", **QUIET)
        assert not plain_latents(probe.pipe, image).isfinite().any()


def plain_latents(pipe, image):
    arguments = {"image": image, "prompt": "fox", "max_area": 64 * 64, "_auto_resize": False}
    return pipe(
        **arguments, num_inference_steps=4, output_type="latent", generator=_generator(0)
    ).images


def test_the_seed_is_all_that_counts(pipeline):
    with torch.random.fork_rng(devices=[]):
        found = []
        for state in (1, 2):
            torch.manual_seed(state)
            with seeded(7, pipeline):
                found.append(torch.rand(3))
            assert torch.equal(torch.rand(2), torch.rand(2, generator=_generator(state)))
        torch.manual_seed(7)
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], torch.rand(3))


def test_threads_have_noise_of_their_own(probe, adapter_probe, image):
    """One asks for layouts, which try the scheduler's steps out, while the other draws noise."""
    with scheduled(probe.pipe, LCM, {}), scheduled(adapter_probe.pipe, LCM, {}):
        expected = [
            pixels(each.generate(image, "fox", seed=seed, **QUIET))
            for each in (probe, adapter_probe)
            for seed in range(3)
        ]
        done = threading.Event()

        def ask():
            while not done.is_set():
                adapter_probe.layout(image)

        with ThreadPoolExecutor(3) as pool:
            asking = pool.submit(ask)
            found = [
                pool.submit(
                    lambda each, seed: each.generate(image, "fox", seed=seed, **QUIET), *job
                )
                for job in [(each, seed) for each in (probe, adapter_probe) for seed in range(3)]
            ]
            try:
                results = [pixels(each.result()) for each in found]
            finally:
                done.set()
            asking.result()
    for one, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def _generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("name", "settings"), [*SIGMAS[:7], SIGMAS[8]])
def test_accelerated_pipelines_run_with_them(pipeline, probe, image, draws, name, settings):
    arguments = {"image": image, "prompt": "fox", "num_inference_steps": 4, "max_area": 64 * 64}
    arguments |= {"_auto_resize": False, "max_sequence_length": tiny.TEXT_TOKENS}

    def make():
        torch.manual_seed(0)
        return np.asarray(pipeline(**arguments, generator=_generator(0)).images[0])

    with scheduled(pipeline, name, settings):
        expected = make()
        with accelerate(pipeline, interventions=[Keep(range(16))]) as accelerated:
            np.testing.assert_array_equal(make(), expected)
            assert accelerated.report["steps"] == 4


def test_accelerated_pipelines_refuse_two_calls_a_step(probe, pipeline, image):
    arguments = probe.pipeline_arguments(image, "fox", steps=2)
    before = pipeline.scheduler
    pipeline.scheduler = TwoCalls.from_config(before.config)
    try:
        with accelerate(pipeline), pytest.raises(InputError, match=r"TwoCalls .*2 times a step"):
            pipeline(**arguments)
    finally:
        pipeline.scheduler = before
