"""Text as embeddings and noise as latents: the image is the plain pipeline's, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from recast_probe.errors import InputError
from recast_probe.experiments.attribution import attribution
from recast_probe.experiments.text_lens import text_lens
from recast_probe.interventions import Knockout, Record
from recast_probe.probe import Probe
from recast_probe.testing import tiny, tiny_flux2, tiny_qwen

QUIET = {"steps": 2, "progress": False}


@dataclass(frozen=True)
class Given:
    """A probe, and what its pipeline can be given in place of prompts and seeds."""

    probe: Probe
    embeddings: dict[str, torch.Tensor]
    negative: dict[str, torch.Tensor]
    guided: dict[str, Any]  # arguments with which the negative ones are read
    by_prompt: dict[str, Any]  # as guided, from the prompt that the negative ones are made of
    latents: tuple[int, ...]
    extra: dict[str, Any]
    text_parts: tuple[str, ...]


def _flux1(probe):
    def encode(prompt, prefix=""):
        found = probe.pipe.encode_prompt(prompt, None, max_sequence_length=tiny.TEXT_TOKENS)
        return {f"{prefix}prompt_embeds": found[0], f"{prefix}pooled_prompt_embeds": found[1]}

    guided = {"true_cfg_scale": 2.0}
    return Given(
        probe,
        encode("fox"),
        encode("snow", "negative_"),
        guided,
        {**guided, "negative_prompt": "snow"},
        (1, 16, 16),
        {},
        ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    )


def _flux2(probe, length):
    def encode(prompt):
        return probe.pipe.encode_prompt(prompt, max_sequence_length=length)[0]

    guided = {"guidance_scale": 3.0}
    klein = probe.family.name == "flux2-klein"
    return Given(
        probe,
        {"prompt_embeds": encode("fox")},
        {"negative_prompt_embeds": encode("")} if klein else {},
        guided,
        guided,
        (1, 16, 4, 4),
        {},
        ("text_encoder", "tokenizer"),
    )


def _qwen(probe, image):
    def encode(prompt, prefix=""):
        pictures = probe.family.scaled_for_text([image])
        embeddings, _ = probe.pipe.encode_prompt(prompt, pictures)
        mask = torch.ones(embeddings.shape[:2], dtype=torch.long)
        return {f"{prefix}prompt_embeds": embeddings, f"{prefix}prompt_embeds_mask": mask}

    return Given(
        probe,
        encode("fox"),
        encode("snow and snow", "negative_"),
        {},
        {"negative_prompt": "snow and snow"},
        (1, 6, 16),
        tiny_qwen.SIZE,
        ("text_encoder", "processor"),
    )


FAMILIES = ("kontext", "adapter", "flux2", "klein", "edit", "plus")


@pytest.fixture(scope="module", params=FAMILIES)
def given(request, probe, adapter_probe, flux2_probes, qwen_probes, image):
    name = request.param
    with torch.no_grad():
        if name in ("kontext", "adapter"):
            return _flux1(probe if name == "kontext" else adapter_probe)
        if name in flux2_probes:
            return _flux2(flux2_probes[name], tiny_flux2.TEXT_TOKENS[name])
        return _qwen(qwen_probes[name], image)


@pytest.fixture(scope="module")
def kontext(probe):
    with torch.no_grad():
        return _flux1(probe)


def noise(shape, seed=5):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def pixels(result):
    return np.asarray(result.image)


def test_embeddings_are_the_prompt(given, image):
    probe, extra = given.probe, given.extra
    by_prompt = probe.generate(image, "fox", profile=True, **QUIET, **extra)
    result = probe.generate(image, None, profile=True, **given.embeddings, **QUIET, **extra)
    np.testing.assert_array_equal(pixels(result), pixels(by_prompt))
    np.testing.assert_array_equal(
        result.profile.dataset["score"], by_prompt.profile.dataset["score"]
    )
    assert result.profile.layout == by_prompt.profile.layout
    asked = probe.pipeline_arguments(image, None, steps=2, **given.embeddings, **extra)
    np.testing.assert_array_equal(np.asarray(probe.pipe(**asked).images[0]), pixels(result))
    assert result.provenance["prompts"] == [None]
    assert "text given as embeddings" in result._repr_html_()
    profile = probe.profile(image, None, **given.embeddings, **QUIET, **extra)
    np.testing.assert_array_equal(profile.dataset["score"], by_prompt.profile.dataset["score"])


def test_negative_embeddings_are_the_negative_prompt(given, image):
    if not given.negative:
        pytest.skip("no negative prompt")
    probe, extra = given.probe, given.extra
    by_prompt = probe.generate(image, "fox", profile=True, **given.by_prompt, **QUIET, **extra)
    assert list(by_prompt.profile.dataset["branch"]) == ["conditional", "unconditional"]
    ways: list[tuple[str | None, dict]] = [
        (None, {**given.embeddings, **given.guided, **given.negative}),
        ("fox", {**given.guided, **given.negative}),
    ]
    if "negative_prompt" in given.by_prompt:
        ways.append((None, {**given.embeddings, **given.by_prompt}))
    for prompt, arguments in ways:
        result = probe.generate(image, prompt, profile=True, **arguments, **QUIET, **extra)
        np.testing.assert_array_equal(pixels(result), pixels(by_prompt))
        np.testing.assert_array_equal(
            result.profile.dataset["score"], by_prompt.profile.dataset["score"]
        )


def test_verify_with_embeddings(kontext, image):
    arguments = {**kontext.embeddings, **kontext.negative, **kontext.guided}
    assert kontext.probe.verify(image, None, **arguments).passed


@pytest.mark.parametrize("length", [1, 5, 30])
def test_the_text_is_as_long_as_its_embeddings(kontext, image, length):
    embeddings = {
        "prompt_embeds": noise((1, length, 32)),
        "pooled_prompt_embeds": kontext.embeddings["pooled_prompt_embeds"],
    }
    probe = kontext.probe
    assert probe.layout(image, **embeddings).text == length
    assert probe.layout(image).text == tiny.TEXT_TOKENS
    # the negative prompt is text, and of another length
    guided = {"true_cfg_scale": 2.0, "negative_prompt": "snow"}
    result = probe.generate(image, None, profile=True, **embeddings, **guided, **QUIET)
    asked = probe.pipeline_arguments(image, None, steps=2, **embeddings, **guided)
    np.testing.assert_array_equal(np.asarray(probe.pipe(**asked).images[0]), pixels(result))
    assert result.profile.layout.text == length


def test_pipelines_without_text_encoders(given, image):
    """They are kept elsewhere, or were thrown away once the prompts were encoded."""
    settings = {**QUIET, **given.extra}
    expected = given.probe.generate(image, "fox", **settings)
    parts = {**given.probe.pipe.components, **dict.fromkeys(given.text_parts)}
    bare = Probe(type(given.probe.pipe)(**parts))
    embeddings = given.embeddings
    if bare.family.name == "flux2-klein":  # its guidance needs the empty prompt
        with pytest.raises(InputError, match=r"no negative prompt.*give negative_prompt_embeds"):
            bare.generate(image, None, **embeddings, **settings)
        embeddings = {**embeddings, **given.negative}
    result = bare.generate(image, None, **embeddings, **settings)
    np.testing.assert_array_equal(pixels(result), pixels(expected))
    assert bare.verify(image, None, **embeddings, **given.extra).passed
    layout = bare.layout(image, **embeddings, **given.extra)
    assert layout == given.probe.layout(image, "fox", **given.extra)
    for part in given.text_parts:
        with pytest.raises(InputError, match=rf"no .*{part}.*; .*prompt_embeds"):
            bare.profile(image, "fox", **QUIET, **given.extra)


def test_a_negative_prompt_needs_encoders_too(kontext, image):
    parts = {**kontext.probe.pipe.components, "text_encoder_2": None}
    bare = Probe(type(kontext.probe.pipe)(**parts))
    negative = {"negative_prompt": "snow", **kontext.embeddings, **QUIET}
    with pytest.raises(InputError, match="no text_encoder_2, so it reads no negative prompt"):
        bare.profile(image, None, true_cfg_scale=2.0, **negative)
    # without guidance nobody reads it
    result = bare.generate(image, None, **negative)
    assert any("negative_prompt has no effect" in each for each in result.provenance["remarks"])


def test_words_of_embeddings_are_not_known(given, image):
    if given.probe.family.takes_adapter:
        pytest.skip("no token of the text reads the reference")
    for tokens in ("padding", "prompt", "vision"):
        with pytest.raises(InputError, match="given as embeddings"):
            given.probe.generate(
                image,
                None,
                interventions=[Record("residual", tokens)],
                **given.embeddings,
                **QUIET,
                **given.extra,
            )
        with pytest.raises(InputError, match="given as embeddings"):
            given.probe.generate(
                image,
                None,
                interventions=[Knockout("reference", tokens)],
                **given.embeddings,
                **QUIET,
                **given.extra,
            )


def test_several_prompts_as_embeddings(kontext, image):
    with torch.no_grad():
        found = kontext.probe.pipe.encode_prompt(
            ["fox", "snow"], None, max_sequence_length=tiny.TEXT_TOKENS
        )
    embeddings = {"prompt_embeds": found[0], "pooled_prompt_embeds": found[1]}
    expected = kontext.probe.generate(image, ["fox", "snow"], **QUIET)
    result = kontext.probe.generate(image, None, **embeddings, **QUIET)
    for one, other in zip(result.images, expected.images, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert len(kontext.probe.profile(image, None, **embeddings, **QUIET)) == 2
    for study in (attribution, text_lens):
        with pytest.raises(InputError, match="one prompt; call it for each"):
            study(kontext.probe, image, None, **embeddings, **QUIET)
    with pytest.raises(InputError, match="one prompt; call it for each"):
        kontext.probe.attention_maps(image, None, **embeddings, **QUIET)


def test_studies_of_one_prompt_as_embeddings(kontext, image):
    one = {"blocks": [0], **QUIET}
    by_prompt = attribution(kontext.probe, image, "fox", **one)
    found = attribution(kontext.probe, image, None, **kontext.embeddings, **one)
    np.testing.assert_array_equal(found.data["distance"], by_prompt.data["distance"])
    lens = text_lens(kontext.probe, image, None, **kontext.embeddings, **one)
    np.testing.assert_array_equal(
        lens.change(), text_lens(kontext.probe, image, "fox", **one).change()
    )


def test_klein_makes_one_negative_embedding(flux2_probes, image):
    probe = flux2_probes["klein"]
    embeddings = noise((2, 8, 3 * tiny_flux2.TEXT_WIDTH))
    with pytest.raises(InputError, match="2 prompts of prompt_embeds; give negative_prompt_embeds"):
        probe.generate(image, None, prompt_embeds=embeddings, **QUIET)
    assert (
        len(
            probe.generate(
                image, None, prompt_embeds=embeddings, guidance_scale=1.0, **QUIET
            ).images
        )
        == 2
    )


def test_qwen_takes_no_padding(qwen_probes, image):
    embeddings = noise((1, 9, tiny_qwen.TEXT_WIDTH))
    mask = torch.ones(1, 9, dtype=torch.bool)
    mask[0, 7:] = False
    settings = {"prompt_embeds": embeddings, **QUIET, **tiny_qwen.SIZE}
    with pytest.raises(InputError, match=r"leaves out 2 of 9 text tokens.*cut them off"):
        qwen_probes["edit"].generate(image, None, prompt_embeds_mask=mask, **settings)
    with pytest.raises(InputError, match=r"shape \(1, 9\), not \(1, 8\)"):
        qwen_probes["edit"].generate(image, None, prompt_embeds_mask=mask[:, :8], **settings)


E = noise((1, 12, 32))
POOLED = noise((1, 32))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": None}, "Give a prompt, or .* as prompt_embeds"),
        ({"prompt": "fox", "prompt_embeds": E, "pooled_prompt_embeds": POOLED}, "prompt='fox' and"),
        ({"prompt_embeds": E}, "without pooled_prompt_embeds"),
        ({"prompt": "fox", "pooled_prompt_embeds": POOLED}, "without prompt_embeds"),
        ({"prompt_embeds": E.numpy(), "pooled_prompt_embeds": POOLED}, "torch.Tensor, not ndarray"),
        ({"prompt_embeds": E[0], "pooled_prompt_embeds": POOLED}, r"\(12, 32\)"),
        ({"prompt_embeds": E[:, :0], "pooled_prompt_embeds": POOLED}, r"\(1, 0, 32\)"),
        ({"prompt_embeds": E[..., :8], "pooled_prompt_embeds": POOLED}, r"need \(1, 12, 32\)"),
        ({"prompt_embeds": E, "pooled_prompt_embeds": POOLED[:, :8]}, r"need \(1, 32\)"),
        ({"prompt_embeds": E, "pooled_prompt_embeds": torch.cat([POOLED] * 2)}, r"\(2, 32\)"),
        ({"prompt_embeds": E.half(), "pooled_prompt_embeds": POOLED}, "float16.*float32"),
        ({"prompt_embeds": E.long(), "pooled_prompt_embeds": POOLED}, "int64"),
        ({"prompt_embeds": E / 0, "pooled_prompt_embeds": POOLED}, "not finite"),
        ({"prompt_embeds": E, "pooled_prompt_embeds": POOLED, "prompt_2": "a"}, "prompt_2 and"),
        ({"prompt": "fox", "negative_prompt_embeds": E}, "negative_pooled_prompt_embeds"),
        (
            {
                "prompt": "fox",
                "negative_prompt": "a",
                "negative_prompt_embeds": E,
                "negative_pooled_prompt_embeds": POOLED,
            },
            "negative_prompt and negative_prompt_embeds",
        ),
        (
            {
                "prompt": ["a", "b"],
                "negative_prompt_embeds": E,
                "negative_pooled_prompt_embeds": POOLED,
            },
            r"need \(2, 12, 32\)",
        ),
        (
            {
                "prompt_embeds": E[:, :5],
                "pooled_prompt_embeds": POOLED,
                "negative_prompt_embeds": E,
                "negative_pooled_prompt_embeds": POOLED,
                "true_cfg_scale": 2.0,
            },
            "same shape",
        ),
    ],
)
def test_embeddings_that_do_not_fit(probe, image, settings, message):
    hook = probe.pipe.transformer.register_forward_pre_hook(_fail)
    try:
        with pytest.raises(InputError, match=message):
            probe.generate(image, **{"prompt": None, **settings}, **QUIET)
    finally:
        hook.remove()


def _fail(*_):
    raise AssertionError("the transformer was called")


def test_latents_are_the_noise(given, image):
    probe, extra = given.probe, given.extra
    latents = noise(given.latents)
    asked = probe.pipeline_arguments(image, "fox", steps=2, latents=latents, **extra)
    expected = np.asarray(probe.pipe(**asked).images[0])
    for seed in (0, 1):
        result = probe.generate(
            image, "fox", seed=seed, profile=True, latents=latents, **QUIET, **extra
        )
        np.testing.assert_array_equal(pixels(result), expected)
        assert any("given as latents" in each for each in result.provenance["remarks"])
    with_seed = probe.generate(image, "fox", **QUIET, **extra)
    assert np.abs(pixels(with_seed).astype(int) - expected).max() > 0
    assert "remarks" not in with_seed.provenance


def test_the_seeds_own_noise_as_latents_is_the_seeds_image(kontext, image):
    made = noise((1, 4, 8, 8), seed=3)
    latents = kontext.probe.pipe._pack_latents(made, 1, 4, 8, 8)
    np.testing.assert_array_equal(
        pixels(kontext.probe.generate(image, "fox", latents=latents, **QUIET)),
        pixels(kontext.probe.generate(image, "fox", seed=3, **QUIET)),
    )


def test_latents_of_another_dtype_are_taken_as_the_pipeline_takes_them(kontext, image):
    latents = noise(kontext.latents).half()
    np.testing.assert_array_equal(
        pixels(kontext.probe.generate(image, "fox", latents=latents, **QUIET)),
        pixels(kontext.probe.generate(image, "fox", latents=latents.float(), **QUIET)),
    )


def test_latents_that_do_not_fit(given, image):
    shape = given.latents
    wrong = [
        (noise((2, *shape[1:])), rf"\(2, .*takes \({shape[0]}, {shape[1]}"),
        (noise(shape)[0], "must have the shape"),
        (noise((1, 16, 8, 8)), r"\(1, 16, 8, 8\)"),
        (noise(shape).numpy(), "torch.Tensor, not ndarray"),
        (noise(shape).long(), "int64"),
        (noise(shape) * float("nan"), "not finite"),
    ]
    for latents, message in wrong:
        with pytest.raises(InputError, match=message):
            given.probe.profile(image, "fox", latents=latents, **QUIET, **given.extra)


def test_latents_for_several_prompts(probe, image):
    latents = noise((2, 16, 16))
    result = probe.generate(image, ["fox", "snow"], latents=latents, **QUIET)
    asked = probe.pipeline_arguments(image, ["fox", "snow"], steps=2, latents=latents)
    expected = probe.pipe(**asked).images
    for one, other in zip(result.images, expected, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    with pytest.raises(InputError, match="one noise for each prompt"):
        probe.generate(image, ["fox", "snow"], latents=latents[:1], **QUIET)
