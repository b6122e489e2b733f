"""DINOv2, CLIP-I and CLIP-T on tiny models of the real classes, read from folders."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import BitImageProcessorPil, CLIPImageProcessorPil, CLIPModel, Dinov2Model

from recast_probe import metrics
from recast_probe.errors import InputError, MissingWeightsError
from recast_probe.metrics.preparation import Preparation
from tests import tiny_metrics

SIZES = ((300, 400), (400, 300), (128, 128), (257, 511))


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory):
    return tiny_metrics.save_dinov2(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    return tiny_metrics.save_clip(tmp_path_factory.mktemp("clip"))


def picture(seed: int = 0, size: tuple[int, int] = (300, 400)) -> Image.Image:
    """Smooth noise, width x height."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (7, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def written_out(image: Image.Image, facts: dict) -> np.ndarray:
    """The documented transform: shortest edge (bicubic), centre crop, 0..1, mean and deviation."""
    edge = facts["size"] if isinstance(facts["size"], int) else facts["size"]["shortest_edge"]
    width, height = image.size
    if width <= height:
        size = (edge, int(edge * height / width))
    else:
        size = (int(edge * width / height), edge)
    resized = image.resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    values = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float64) / 255
    values = (values - facts["image_mean"]) / facts["image_std"]
    return np.moveaxis(values, -1, 0)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["dino", "clip"])
def test_whole_images_are_prepared_as_published(dino_folder, clip_folder, kind, size):
    folder, facts, processor = {
        "dino": (dino_folder, tiny_metrics.DINO_PROCESSOR, BitImageProcessorPil),
        "clip": (clip_folder, tiny_metrics.CLIP_PROCESSOR, CLIPImageProcessorPil),
    }[kind]
    loaded = processor.from_pretrained(folder)
    image = picture(size=size)
    prepared = Preparation(loaded)([image])
    assert prepared.shape == (1, 3, 224, 224)
    assert prepared.dtype == torch.float32
    np.testing.assert_allclose(prepared[0].numpy(), written_out(image, facts), atol=1e-5)
    assert torch.equal(prepared, loaded(image, return_tensors="pt")["pixel_values"].float())


def test_the_subject_alone_is_cut_out_at_the_encoders_size(dino_folder):
    prepare = Preparation(BitImageProcessorPil.from_pretrained(dino_folder))
    image = Image.new("RGB", (100, 100), (255, 0, 0))
    mask = np.zeros((100, 100), bool)
    mask[30:50, 40:60] = True
    (values,) = prepare([image], [mask]).numpy()
    # outside the subject is the encoder's mean, so zero but for eight-bit rounding
    assert np.abs(values[:, :8]).max() < 0.02
    assert np.abs(values[:, :, -8:]).max() < 0.02
    red = (np.array([1.0, 0, 0]) - prepare.mean) / prepare.deviation
    np.testing.assert_allclose(values[:, 112, 112], red, atol=1e-5)
    # the box is widened by 15 % of its length on each side: 20 of 26 pixels are the subject
    inside = values[0, 112] > red[0] / 2
    assert inside.mean() == pytest.approx(20 / 26, abs=0.02)


def test_dinov2_is_the_cosine_of_normalised_class_tokens(dino_folder):
    metric = metrics.metric("dinov2", dino_folder)
    model = Dinov2Model.from_pretrained(dino_folder).eval()
    images = [picture(1), picture(2)]
    values = np.stack([written_out(each, tiny_metrics.DINO_PROCESSOR) for each in images])
    with torch.inference_mode():
        tokens = model(torch.from_numpy(values).float()).last_hidden_state[:, 0].double().numpy()
    wanted = tokens[0] @ tokens[1] / np.linalg.norm(tokens[0]) / np.linalg.norm(tokens[1])
    assert metric.score(images[0], None, images[1], None) == pytest.approx(wanted, abs=1e-5)
    assert wanted < 0.99
    assert metric.score(images[0], None, images[0], None) == pytest.approx(1, abs=1e-6)


def test_clip_scores_are_those_of_the_joint_model(clip_folder):
    model = CLIPModel.from_pretrained(clip_folder).eval()
    images, prompt = [picture(1), picture(2)], "a red fox"
    values = np.stack([written_out(each, tiny_metrics.CLIP_PROCESSOR) for each in images])
    clip_i = metrics.metric("clip-i", clip_folder)
    clip_t = metrics.metric("clip-t", clip_folder)
    tokens = clip_t.clip.tokenizer(prompt, return_tensors="pt")
    assert tokens["input_ids"][0].tolist()[0] == 0
    assert len(tokens["input_ids"][0]) == 9
    with torch.inference_mode():
        found = model(pixel_values=torch.from_numpy(values).float(), **tokens)
    image, text = found.image_embeds.double().numpy(), found.text_embeds.double().numpy()
    assert clip_i.score(images[0], None, images[1], None) == pytest.approx(
        float(image[0] @ image[1]), abs=1e-5
    )
    for row, each in zip(image, images, strict=True):
        assert clip_t.score_text(each, prompt) == pytest.approx(float(row @ text[0]), abs=1e-5)
    assert clip_i.clip is clip_t.clip


def test_masks_are_used_or_ignored_by_name(dino_folder):
    masked = metrics.metric("dinov2", dino_folder)
    whole = metrics.metric("dinov2-whole", dino_folder)
    first, second = picture(1, (96, 96)), picture(2, (96, 96))
    subject = picture(3, (32, 32))
    first.paste(subject, (8, 8))
    second.paste(subject, (56, 40))
    masks = [np.zeros((96, 96), bool) for _ in range(2)]
    masks[0][8:40, 8:40] = True
    masks[1][40:72, 56:88] = True
    assert masked.score(first, masks[0], second, masks[1]) == pytest.approx(1, abs=1e-4)
    wanted = masked.score(first, None, second, None)
    assert whole.score(first, masks[0], second, masks[1]) == wanted < 0.999
    assert (whole.name, whole.provenance()["metric"]) == ("dinov2-whole", "dinov2-whole")


def test_features_do_not_depend_on_the_batch(dino_folder):
    metric = metrics.metric("dinov2", dino_folder)
    images = [picture(seed, (64, 64)) for seed in range(17)]
    together = metric.embed(images)
    assert together.shape == (17, 32)
    assert together[16:] == pytest.approx(metric.embed(images[16:]), abs=1e-5)
    assert metric.embed([]).shape[0] == 0


def test_grey_and_transparent_images_are_read_as_rgb(dino_folder):
    metric = metrics.metric("dinov2", dino_folder)
    grey = picture(1).convert("L")
    assert metric.score(grey, None, grey.convert("RGB"), None) == pytest.approx(1, abs=1e-6)


def test_long_prompts_are_cut_with_a_warning_and_empty_ones_refused(clip_folder):
    metric = metrics.metric("clip-t", clip_folder)
    with pytest.warns(UserWarning, match=r"reads 12 tokens and this prompt has 27"):
        metric.score_text(picture(), "a fox under the moon in the snow")
    with pytest.raises(InputError, match="prompt is empty"):
        metric.score_text(picture(), " ")


def test_provenance_names_the_weights(dino_folder, tmp_path):
    own = metrics.metric("dinov2", dino_folder).provenance()
    other = tiny_metrics.save_dinov2(tmp_path / "other", seed=1)
    assert own["source"] == dino_folder.name
    assert own["weights"] != metrics.metric("dinov2", other).provenance()["weights"]
    json.dumps(own)


@pytest.mark.parametrize("name", ["dinov2", "clip-i", "clip-t"])
def test_weights_that_are_out_of_reach(monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = "nobody/no-such-model"
    with pytest.raises(MissingWeightsError) as caught:
        metrics.metric(name, repository)
    text = str(caught.value)
    assert f"weights of {name} are missing" in text
    assert "model.safetensors" in text
    assert f"hf download {repository}" in text
    assert f"--metrics {name}=FOLDER" in text


def test_folders_that_lack_something(dino_folder, clip_folder, tmp_path):
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        partial = tmp_path / name
        shutil.copytree(dino_folder, partial)
        (partial / name).unlink()
        with pytest.raises(MissingWeightsError, match=f"lacks {name}"):
            metrics.metric("dinov2", partial)
        assert name in (metrics.missing("dinov2", partial) or "")
    with pytest.raises(MissingWeightsError, match="no folder"):
        metrics.metric("dinov2", tmp_path / "nowhere")
    with pytest.raises(InputError, match="kind 'clip'"):
        metrics.metric("dinov2", clip_folder)
    assert metrics.missing("dinov2", dino_folder) is None


def test_files_cut_short_are_never_filled_with_random_weights(dino_folder, tmp_path):
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    shutil.copytree(dino_folder, broken)
    weights = load_file(broken / "model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if name != "layernorm.weight"},
        broken / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(InputError, match=r"lack 1 tensors.*layernorm\.weight"):
        metrics.metric("dinov2", broken)
    data = (dino_folder / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="cannot be used"):
        metrics.metric("dinov2", broken)
