"""FluxReduxPipeline makes the images of diffusers' two pipelines, called one after the other."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers import FluxPipeline, FluxPriorReduxPipeline, FluxTransformer2DModel

import recast_probe
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.pipelines.flux.redux_pipeline import FluxReduxPipeline
from recast_probe.pipelines.loading import load_pipeline
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_redux

IMAGE = tiny.tiny_image(96, 64)
SIZE = {"height": 64, "width": 48, "num_inference_steps": 2, "output_type": "latent"}


@pytest.fixture(scope="module")
def both():
    return tiny_redux.build_both()


@pytest.fixture(scope="module")
def redux(both):
    pipeline = FluxReduxPipeline.from_pipelines(*both)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def made(pipeline, *arguments, rows=1, **settings):
    generators = [torch.Generator().manual_seed(3) for _ in range(rows)]
    return pipeline(*arguments, **SIZE | settings, generator=generators).images


@pytest.mark.parametrize(
    ("texts", "scales"),
    [
        ({"prompt": "a cat"}, {}),
        ({"prompt": "a cat", "prompt_2": "snow"}, {}),
        ({"prompt": ""}, {"prompt_embeds_scale": 0.5}),
        ({"prompt": "a cat"}, {"prompt_embeds_scale": 2, "pooled_prompt_embeds_scale": 0}),
    ],
)
def test_images_are_those_of_the_two(both, redux, texts, scales):
    prior, pipe = both
    by_hand = prior(IMAGE, **texts, **{name: float(each) for name, each in scales.items()})
    expected = made(pipe, **by_hand)
    assert torch.equal(made(redux, IMAGE, **texts, **scales), expected)
    assert redux.image_tokens == 16
    assert by_hand.prompt_embeds.shape[1] == 512 + redux.image_tokens
    assert not torch.equal(made(redux, IMAGE.rotate(180), **texts, **scales), expected)


def test_each_of_several_prompts_gets_the_image(both, redux):
    prior, pipe = both
    by_hand = [prior(IMAGE, prompt=each) for each in ("a cat", "snow")]
    names = ("prompt_embeds", "pooled_prompt_embeds")
    joined = {name: torch.cat([each[name] for each in by_hand]) for name in names}
    found = made(redux, IMAGE, ["a cat", "snow"], rows=2)
    assert torch.equal(found, made(pipe, **joined, rows=2))


def test_negative_prompt_has_the_image_too(both, redux):
    prior, pipe = both
    by_hand, negative = prior(IMAGE, prompt="a cat"), prior(IMAGE, prompt="snow")
    guided = {"true_cfg_scale": 3.0}
    expected = made(
        pipe, **by_hand, **guided, **{f"negative_{name}": each for name, each in negative.items()}
    )
    assert torch.equal(made(redux, IMAGE, "a cat", negative_prompt="snow", **guided), expected)
    unguided = made(redux, IMAGE, "a cat", negative_prompt="snow")
    assert torch.equal(unguided, made(pipe, **by_hand))
    assert not torch.equal(unguided, expected)


def test_without_an_image_it_is_flux_pipeline(both, redux):
    guided = {"prompt": "a cat", "negative_prompt": "snow", "true_cfg_scale": 2.0}
    assert torch.equal(made(redux, **guided), made(both[1], **guided))
    assert redux.image_tokens == 0


def test_shorter_text_and_embeddings_are_those_of_the_prompt(both, redux):
    prior, pipe = both
    with torch.no_grad():  # with gradients attention has another kernel
        text = prior.encode_prompt("a cat", max_sequence_length=9)[:2]
    names = ("prompt_embeds", "pooled_prompt_embeds")
    before = [each.clone() for each in text]
    given = dict(zip(names, text, strict=True))
    expected = made(pipe, **prior(IMAGE, **given))
    assert torch.equal(made(redux, IMAGE, "a cat", max_sequence_length=9), expected)
    assert torch.equal(made(redux, IMAGE, **given), expected)
    made(redux, IMAGE, **given, pooled_prompt_embeds_scale=3.0)
    assert all(torch.equal(*each) for each in zip(before, text, strict=True)), "The user's own."


def test_zeros_stand_for_no_prompt_as_in_a_prior_without_text_encoders(both):
    """The prior's zeros have FLUX's own widths, so the transformer has them here."""
    prior, pipe = both
    parts = {name: getattr(prior, name) for name in ("image_encoder", "feature_extractor")}
    embedder = diffusers.pipelines.flux.modeling_flux.ReduxImageEncoder(tiny_redux.IMAGE_WIDTH, 8)
    embedder.redux_down = torch.nn.Linear(24, 4096)
    config = {**pipe.transformer.config, "joint_attention_dim": 4096, "pooled_projection_dim": 768}
    prior = FluxPriorReduxPipeline(**parts, image_embedder=embedder)
    silent = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    pipe = FluxPipeline(
        scheduler=pipe.scheduler,
        vae=pipe.vae,
        transformer=FluxTransformer2DModel.from_config(config).eval(),
        **silent,
    )
    redux = FluxReduxPipeline.from_pipelines(prior, pipe)
    for each in (pipe, redux):
        each.set_progress_bar_config(disable=True)
    expected = made(pipe, **prior(IMAGE))
    assert torch.equal(made(redux, IMAGE), expected)
    assert torch.equal(made(redux, IMAGE, **redux.no_prompt()), expected)
    with pytest.raises(InputError, match="no text_encoder"):
        redux(IMAGE, "a cat")
    probe = Probe(redux)
    call = {"steps": 2, "height": 64, "width": 48, "progress": False}
    with pytest.raises(InputError, match="no tokenizer"):
        probe.generate(IMAGE, "a cat", **call)
    profile = probe.profile(IMAGE, None, **redux.no_prompt(), **call)
    assert profile.dataset["score"].shape[-1] == 16


def test_text_encoders_are_the_priors_own_or_else_the_pipelines(both):
    prior, pipe = both
    others = tiny_redux.build_both(seed=1)[1]
    assert FluxReduxPipeline.from_pipelines(prior, others).text_encoder_2 is prior.text_encoder_2
    image = {name: getattr(prior, name) for name in ("image_encoder", "feature_extractor")}
    silent = FluxPriorReduxPipeline(**image, image_embedder=prior.image_embedder)
    found = FluxReduxPipeline.from_pipelines(silent, pipe)
    assert found.text_encoder is pipe.text_encoder
    assert found.tokenizer_2 is pipe.tokenizer_2


def test_what_is_refused(both, redux):
    prior, pipe = both
    for pair, name in (((pipe, prior), "FluxPipeline is no"), ((prior, prior), "no FluxPipeline")):
        with pytest.raises(InputError, match=name):
            FluxReduxPipeline.from_pipelines(*pair)
    for image in ([IMAGE, IMAGE], torch.zeros(1, 3, 64, 64)):
        with pytest.raises(InputError, match=f"one PIL.Image.Image, not {type(image).__name__}"):
            redux(image, "a cat")
    with pytest.raises(UnsupportedPipelineError, match=r"FluxReduxPipeline\.from_pipelines"):
        Probe(prior)
    with pytest.raises(ValueError, match="prompt"):
        redux(IMAGE, "a cat", **redux.no_prompt())


def test_every_model_has_its_turn_when_parts_are_offloaded(redux):
    models = {n for n, each in redux.components.items() if isinstance(each, torch.nn.Module)}
    assert set(redux.model_cpu_offload_seq.split("->")) == models


def test_one_folder_holds_all_of_it(tmp_path, redux):
    redux.save_pretrained(tmp_path)
    probe = Probe.from_pretrained(tmp_path)
    assert type(probe.pipe) is recast_probe.FluxReduxPipeline
    assert probe.fingerprint == Probe(redux).fingerprint
    assert probe.identity()["parts"].keys() == redux.components.keys() | {"pipeline"}
    assert torch.equal(made(probe.pipe, IMAGE, "a cat"), made(redux, IMAGE, "a cat"))


def test_a_folder_of_the_prior_alone_says_what_to_do(tmp_path, both):
    both[0].save_pretrained(tmp_path)
    with pytest.raises(UnsupportedPipelineError, match=r"from_pipelines.*save_pretrained"):
        load_pipeline(tmp_path)


def test_an_image_embedder_with_gaps_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    tiny_redux.save_tiny_pipeline(tmp_path)
    (file,) = (tmp_path / "image_embedder").glob("*.safetensors")
    weights = load_file(file)
    del weights["redux_up.bias"]
    save_file(weights, file)
    with pytest.raises(InputError, match=r"ReduxImageEncoder.*redux_up\.bias"):
        load_pipeline(tmp_path)
