"""The recorded numbers are the attention that the pipeline computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe.errors import VerificationError
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.runs.verification import dense_scores
from recast_probe.runs.watching import watch_attention
from recast_probe.testing import tiny

STEPS = 3


def dense_profile(probe, image, prompt, **settings) -> tuple[np.ndarray, np.ndarray]:
    """Scores (call, prompt, block, head, token) and timesteps by the second attachment."""
    layout = probe.layout(image)
    scores: dict[int, list[np.ndarray]] = {}
    timesteps = []

    def collect(call, attention, arguments):
        assert attention == len(scores.setdefault(call, []))
        scores[call].append(
            dense_scores(arguments["query"], arguments["key"], layout, None, range(tiny.HEADS))
        )

    hook = probe.pipe.transformer.register_forward_pre_hook(
        lambda module, positional, inputs: timesteps.append(float(inputs["timestep"][0])),
        with_kwargs=True,
    )
    with watch_attention(probe.pipe.transformer, collect):
        probe.pipe(**probe.pipeline_arguments(image, prompt, steps=STEPS, **settings))
    hook.remove()
    blocks = np.array([scores[call] for call in sorted(scores)])
    return blocks.transpose(0, 2, 1, 3, 4), np.array(timesteps) * 1000


def test_scores_are_a_dense_softmax_in_float64(probe, image):
    profile = probe.profile(image, "a red fox", steps=STEPS, progress=False)
    expected, timesteps = dense_profile(probe, image, "a red fox")
    scores = profile.dataset["score"]
    assert scores.sizes == {"branch": 1, "step": 3, "block": 5, "head": 2, "token": 16}
    np.testing.assert_allclose(scores.values[0], expected[:, 0], rtol=2e-5)
    np.testing.assert_allclose(profile.dataset["timestep"], timesteps, rtol=1e-6)
    assert list(profile.dataset["step"].values) == [0, 1, 2]
    assert profile.dataset["sigma"].values[0] == pytest.approx(1.0)


def test_mass_rows_sum_to_one_and_contain_the_scores(probe, image):
    profile = probe.profile(image, "a red fox", steps=2, progress=False)
    mass = profile.dataset["mass"]
    np.testing.assert_allclose(mass.sum("key_group"), 1, atol=1e-5)
    reference = mass.sel(query_group="generation", key_group="reference")
    np.testing.assert_allclose(profile.dataset["score"].sum("token"), reference, atol=1e-6)


def test_only_the_queried_row_of_the_mass_table(probe, image):
    profile = probe.profile(image, "fox", steps=1, progress=False, mass_table="queried")
    mass = profile.dataset["mass"]
    np.testing.assert_allclose(mass.sel(query_group="generation").sum("key_group"), 1, atol=1e-5)
    assert np.isnan(mass.sel(query_group="text")).all()


def test_both_branches_of_true_guidance(probe, image):
    settings = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
    profile = probe.profile(image, "a red fox", steps=STEPS, progress=False, **settings)
    expected, timesteps = dense_profile(probe, image, "a red fox", **settings)
    assert len(expected) == 2 * STEPS
    assert np.array_equal(timesteps[::2], timesteps[1::2])
    scores = profile.dataset["score"]
    assert list(scores["branch"].values) == ["conditional", "unconditional"]
    np.testing.assert_allclose(scores.values[0], expected[::2, 0], rtol=2e-5)
    np.testing.assert_allclose(scores.values[1], expected[1::2, 0], rtol=2e-5)
    np.testing.assert_array_equal(profile.score, scores.sel(branch="conditional"))
    # the conditional branch of the first step knows nothing of the negative prompt
    alone = probe.profile(image, "a red fox", steps=STEPS, profile_steps=0, progress=False)
    np.testing.assert_allclose(profile.score[0], alone.score[0], rtol=1e-6)
    assert not np.allclose(scores.values[0], scores.values[1], rtol=1e-3)


def test_branches_are_told_apart_by_their_embeddings(probe, image, monkeypatch):
    """If a pipeline called the unconditional branch first, it would still be named correctly."""
    settings = {"true_cfg_scale": 2.0, "negative_prompt": "blurry", "steps": 1, "progress": False}
    expected = probe.profile(image, "a red fox", **settings)
    names = type(probe.family).branch_names
    monkeypatch.setattr(
        type(probe.family), "branch_names", lambda self, a: tuple(reversed(names(self, a)))
    )
    monkeypatch.setattr(
        type(probe.family),
        "branch_embeddings",
        lambda self, a: {name: self._encode(a, name) for name in self.branch_names(a)},
    )
    found = probe.profile(image, "a red fox", **settings)
    np.testing.assert_array_equal(
        found.dataset["score"].sel(branch="conditional"),
        expected.dataset["score"].sel(branch="conditional"),
    )


@pytest.mark.parametrize(
    ("size", "grid"),
    [((96, 48), Grid(2, 5)), ((48, 96), Grid(5, 2)), ((200, 200), Grid(4, 4))],
)
def test_references_that_are_not_square(probe, size, grid):
    image = tiny.tiny_image(*size)
    profile = probe.profile(image, "fox", steps=STEPS, progress=False)
    assert profile.layout.references == (grid,) == probe.layout(image).references
    assert profile.dataset.sizes["token"] == grid.size
    expected, _ = dense_profile(probe, image, "fox")
    np.testing.assert_allclose(profile.dataset["score"].values[0], expected[:, 0], rtol=2e-5)


def test_an_output_that_is_not_square(probe, image):
    profile = probe.profile(image, "fox", steps=1, height=32, width=128, progress=False)
    assert profile.layout.generation == Grid(2, 8)


def test_several_prompts_are_one_batch_and_the_same_as_one_by_one(probe, image, calls):
    prompts = ["a red fox", "on the beach", "snow"]
    together = probe.profile(image, prompts, steps=2, seed=3, progress=False)
    assert calls.count == 2
    for prompt, profile in zip(prompts, together, strict=True):
        alone = probe.profile(image, prompt, steps=2, seed=3, progress=False)
        # batched matrix products round differently: single precision, a few units per layer
        np.testing.assert_allclose(
            profile.dataset["score"], alone.dataset["score"], rtol=1e-4, atol=1e-7
        )
        assert profile.provenance["prompt"] == prompt


def test_a_list_of_one_prompt_gives_a_list(probe, image):
    profiles = probe.profile(image, ["fox"], steps=1, progress=False)
    assert isinstance(profiles, list)
    assert len(profiles) == 1


def test_several_prompts_with_true_guidance(probe, image):
    settings = {"steps": 1, "progress": False, "true_cfg_scale": 2.0, "negative_prompt": "blurry"}
    together = probe.profile(image, ["fox", "snow"], **settings)
    alone = probe.profile(image, "snow", **settings)
    np.testing.assert_allclose(
        together[1].dataset["score"], alone.dataset["score"], rtol=1e-4, atol=1e-7
    )


class Counter:
    count = 0


@pytest.fixture
def calls(pipeline):
    """Counts the calls of the transformer."""
    counter = Counter()

    def count(*_):
        counter.count += 1

    hook = pipeline.transformer.register_forward_pre_hook(count)
    yield counter
    hook.remove()


def test_a_selection_is_a_part_of_the_whole(probe, image, calls):
    whole = probe.profile(image, "fox", steps=4, progress=False)
    part = probe.profile(
        image, "fox", steps=4, blocks=[1, 4], profile_steps=[1, 2], heads=1, progress=False
    )
    scores = part.dataset["score"]
    assert scores.sizes == {"branch": 1, "step": 2, "block": 2, "head": 1, "token": 16}
    expected = whole.dataset["score"].sel(block=[1, 4], step=[1, 2], head=[1])
    np.testing.assert_array_equal(scores, expected)
    np.testing.assert_array_equal(scores["timestep"], expected["timestep"])


def test_a_profile_stops_after_its_last_step(probe, image, calls, monkeypatch):
    def decode(*_, **__):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(probe.pipe.vae, "decode", decode)
    probe.profile(image, "fox", steps=10, profile_steps=[0, 2], progress=False)
    assert calls.count == 3
    calls.count = 0
    probe.profile(image, "fox", steps=2, progress=False)
    assert calls.count == 2


def test_a_profile_stops_after_both_branches(probe, image, calls):
    settings = {"true_cfg_scale": 2.0, "negative_prompt": "blurry"}
    probe.profile(image, "fox", steps=6, profile_steps=1, progress=False, **settings)
    assert calls.count == 4


def test_blocks_that_are_not_selected_run_untouched(probe, image, monkeypatch):
    """Their own attention is called, and that of the selected blocks is not."""
    called = []
    with watch_attention(probe.pipe.transformer, lambda call, n, _: called.append((call, n))):
        probe.generate(
            image, "fox", steps=2, profile=True, blocks="single", profile_steps=1, progress=False
        )
    # the fifth call of step 1 is the one comparison of kernels in the first selected block
    assert called == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1), (1, 2)]


def test_provenance_says_how_a_profile_was_made(probe, image):
    provenance = probe.profile(image, "fox", steps=2, seed=5, progress=False).provenance
    assert provenance["prompt"] == "fox"
    assert provenance["seed"] == 5
    assert provenance["steps"] == 2
    assert provenance["model"]["fingerprint"] == probe.fingerprint
    assert provenance["model"]["attention_backend"] == "native"
    assert {"torch", "diffusers", "nnsight", "python"} <= set(provenance["versions"])
    facts = provenance["verification"]
    assert facts["attention_calls_recorded"] == facts["attention_calls_expected"] == 10
    assert facts["timesteps_checked"] == 2
    assert facts["attention_output_difference"] == 0


def test_a_wrong_timestep_is_noticed(probe, image, monkeypatch):
    predict = type(probe.family).predict_schedule

    def late(self, *arguments):
        schedule = predict(self, *arguments)
        schedule.timesteps[1] -= 5
        return schedule

    monkeypatch.setattr(type(probe.family), "predict_schedule", late)
    with pytest.raises(VerificationError, match="Step 1 should run at timestep"):
        probe.profile(image, "fox", steps=3, progress=False)


def test_another_number_of_calls_is_noticed(probe, image, monkeypatch):
    predict = type(probe.family).predict_schedule

    def short(self, *arguments):
        schedule = predict(self, *arguments)
        return type(schedule)(schedule.timesteps[:2], schedule.sigmas[:2])

    monkeypatch.setattr(type(probe.family), "predict_schedule", short)
    with pytest.raises(VerificationError, match="3 times, and 2 calls"):
        probe.generate(image, "fox", steps=3, progress=False)


def test_another_layout_is_noticed(probe, image, monkeypatch):
    predict = type(probe.family).predict_layout

    def other(self, *arguments):
        layout = predict(self, *arguments)
        return type(layout)(layout.text, layout.generation, (Grid(2, 8),))

    monkeypatch.setattr(type(probe.family), "predict_layout", other)
    with pytest.raises(VerificationError, match="was expected from"):
        probe.profile(image, "fox", steps=1, progress=False)


def test_half_precision(tiny_folder, image):
    """bfloat16 models are read in float32: the scores are those of their own queries and keys."""
    probe = Probe.from_pretrained(tiny_folder, dtype="bfloat16")
    assert probe.pipe.transformer.dtype == torch.bfloat16
    profile = probe.profile(image, "fox", steps=STEPS, progress=False)
    expected, _ = dense_profile(probe, image, "fox")
    np.testing.assert_allclose(profile.dataset["score"].values[0], expected[:, 0], rtol=1e-4)
    assert profile.provenance["model"]["dtype"] == "bfloat16"
    assert probe.verify(image, "fox").image_difference == 0
