"""Pocket's IP-Adapter: what it sees, its training, and that diffusers loads it as it is."""

from __future__ import annotations

import json
from contextlib import suppress

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from PIL import Image
from transformers import CLIPImageProcessor

from recast_probe import pocket
from recast_probe.errors import DamagedFileError, InputError, UnsupportedPipelineError
from recast_probe.pipelines.ip_adapter.loading import WEIGHTS
from recast_probe.pipelines.run_identity import model_fingerprint
from recast_probe.pocket import adapter
from recast_probe.pocket.adapter import train as adapter_training
from recast_probe.pocket.adapter.architecture import (
    AdapterConfig,
    build_image_encoder,
    first_weights,
    with_adapter,
)
from recast_probe.pocket.adapter.model import AdapterModel
from recast_probe.pocket.adapter.train import (
    as_batch,
    held_out_errors,
    picture_task,
    standard_plan,
    train_adapter,
)
from recast_probe.pocket.adapter.views import WINDOWS, Views, normalised, window_pixels, windows
from recast_probe.pocket.architecture import (
    PocketConfig,
    assemble,
    build_autoencoder,
    build_text_encoders,
    build_transformer,
)
from recast_probe.pocket.autoencoder import to_tensor
from recast_probe.pocket.checkpoint import load_checkpoint
from recast_probe.pocket.evaluate import evaluate, generate
from recast_probe.pocket.held_out_tasks import held_out_tasks
from recast_probe.pocket.subjects import held_out
from recast_probe.pocket.train import Stage, TrainingPlan

SMALL = PocketConfig(
    double_blocks=1,
    single_blocks=1,
    heads=2,
    head_dim=16,
    rotary_axes=(4, 6, 6),
    latent_channels=4,
    text_width=32,
    pooled_width=32,
)
TINY = AdapterConfig(width=32, layers=1, heads=2, embedding=16)
PLAN = TrainingPlan((Stage(128, 16, 2),), capacity=16, reuse=2, seed=3)


def small_base(seed: int = 0):
    """A random pipeline of Pocket's kind, whose transformer's output is not zero."""
    torch.manual_seed(seed)
    transformer = build_transformer(SMALL)
    parts = build_text_encoders(SMALL, pocket.folder())
    return assemble(build_autoencoder(SMALL).eval(), transformer, *parts, pocket.folder())


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    file = tmp_path_factory.mktemp("pack") / "subjects.npz"
    subjects = held_out()[:6]
    np.savez(
        file,
        rgba=np.stack([s.rgba for s in subjects]),
        **{
            name: np.array([getattr(s, name) for s in subjects])
            for name in ("key", "name", "style")
        },
    )
    return file


@pytest.fixture(scope="module", autouse=True)
def few_tasks():
    """To make embeddings white, and to take errors on while training goes on."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(adapter_training, "FIRST_SEEN", 8)
        patched.setattr(adapter_training, "HELD_OUT", 6)
        yield


@pytest.fixture(scope="module")
def trained(pack, tmp_path_factory):
    """The folder of a short training, and the lines that it logged."""
    work, lines = tmp_path_factory.mktemp("work"), []
    train_adapter(pack, small_base(), work, PLAN, config=TINY, measure_every=4, log=lines.append)
    return work, lines


def test_windows_tile_the_picture_and_say_where_they_were():
    """Each pixel of the picture is in one of the small windows, and the rulers tell all apart."""
    seen = np.zeros((128, 128), int)
    for side, left, top in WINDOWS[:25]:
        seen[top : top + side, left : left + side] += 1
    assert seen.min() == 1
    grey = np.array([np.array(w) for w in windows(np.full((90, 130, 3), 77, np.uint8))])
    assert grey.shape == (32, 32, 32, 3)
    assert (grey[:, 2:, 2:] == 77).all()
    across, down = grey[:, 0, 2:, 0], grey[:, 2:, 0, 0]
    assert len({(a.tobytes(), d.tobytes()) for a, d in zip(across, down, strict=True)}) == 32
    whole = WINDOWS.index((128, 0, 0))
    assert (across[whole] == 255).all()
    left_quarter = WINDOWS.index((64, 0, 0))
    assert across[left_quarter].tolist() == [255] * 14 + [0] * 16


def test_what_is_trained_on_is_what_the_pipeline_sees():
    picture = pocket.samples()[0].image
    plain = CLIPImageProcessor(size=32, crop_size=32)
    given = windows(picture)
    own = Views()([picture], return_tensors="pt").pixel_values
    torch.testing.assert_close(plain(given, return_tensors="pt").pixel_values, own, atol=0, rtol=0)
    exact = np.stack([np.array(each) for each in given])
    fast = window_pixels(to_tensor(np.array(picture))[None])[0].permute(0, 2, 3, 1).numpy()
    assert np.abs(exact.astype(int) - fast).max() <= 1
    seen = normalised(torch.from_numpy(exact).permute(0, 3, 1, 2))
    torch.testing.assert_close(seen, own, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wrong", ["text", np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(InputError, match="give"):
        windows(wrong)


def test_an_adapter_begins_as_no_adapter():
    base = small_base()
    torch.nn.init.normal_(base.transformer.proj_out.weight, std=0.1)
    torch.manual_seed(1)
    pipeline = with_adapter(base, build_image_encoder(TINY), first_weights(base, TINY))
    batch = as_batch(held_out_tasks(held_out()[:3], 0), base.vae, "cpu")
    model = AdapterModel(pipeline)
    with torch.no_grad():
        found = held_out_errors(model, batch)
        assert found["own image"] == found["no image"] == found["other image"]
        torch.nn.init.normal_(model.processors[0].to_v_ip[0].weight)
        changed = held_out_errors(model, batch)
    assert changed["no image"] == found["no image"]
    assert len(set(changed.values())) == 3


def test_the_first_tokens_tell_pictures_apart():
    base = small_base()
    pipeline = with_adapter(base, build_image_encoder(TINY), first_weights(base, TINY))
    model = AdapterModel(pipeline)
    batch = as_batch(held_out_tasks(held_out()[:8], 0), base.vae, "cpu")

    def share_that_differs():
        with torch.no_grad():
            (embeddings,) = model._shown(batch)["ip_adapter_image_embeds"]
            (tokens,) = pipeline.transformer.encoder_hid_proj([embeddings])
        return float((tokens - tokens.mean(0)).square().mean() / tokens.square().mean())

    before = share_that_differs()
    model.whiten(batch.windows)
    assert share_that_differs() > 2 * before
    assert share_that_differs() > 0.5


def test_only_the_picture_tells_what_the_subject_is():
    subjects, rng = held_out()[:6], np.random.default_rng(5)
    tasks = [picture_task(subjects, rng) for _ in range(60)]
    assert {task.kind for task in tasks} == {"background", "new scene"}
    assert {task.reference.subject.key for task in tasks} == {each.key for each in subjects}
    for task in tasks:
        own = next(each for each in subjects if each.key == task.reference.subject.key)
        assert own.name not in task.caption
        assert task.target.subject == task.reference.subject
        assert (task.target.hue, task.target.flip) == (task.reference.hue, task.reference.flip)


def test_training_learns_and_leaves_the_base_as_it_was(pack, trained):
    work, lines = trained
    base = small_base()
    assert sum("own image" in line for line in lines) == 2
    tensors, progress = load_checkpoint(work / "checkpoint")
    assert progress["base"] == model_fingerprint(base)
    assert [each["samples"] for each in progress["measured"]] == [8, 16]
    trained_names = {name.split("/", 1)[1] for name in tensors if name.startswith("model/")}
    assert {name.split(".")[0] for name in trained_names} == {
        "image_encoder",
        "projection",
        "processors",
    }
    by_muon = [name for name in tensors if name.startswith("optimiser/momentum_buffer/")]
    assert by_muon
    assert all("image_encoder.vision_model.encoder.layers." in name for name in by_muon)
    record = json.loads((work / "adapter" / "training.json").read_text())
    assert record["samples"] == [16]
    assert record["finished"]
    assert record["versions"]["torch"] == torch.__version__
    # nothing but the adapter was trained
    again = train_adapter(pack, base, work, PLAN, config=TINY, log=lambda _: None)
    assert again["steps"] == progress["steps"]
    assert model_fingerprint(small_base()) == progress["base"]
    fresh = small_base().transformer.state_dict()
    after = base.transformer.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in fresh.items())


class Killed(BaseException):
    """In place of a kill at some step."""


def test_a_run_that_was_killed_equals_one_that_was_not(pack, trained, tmp_path, monkeypatch):
    whole, progress = load_checkpoint(trained[0] / "checkpoint")
    image, left = AdapterModel._shown, [0]

    def killed(self, *given, **named):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return image(self, *given, **named)

    # of 8 steps; a measurement after each fourth shows two images, too
    for workers, steps in enumerate((1, 5, 99)):
        with monkeypatch.context() as patched, suppress(Killed):
            left[0] = steps
            patched.setattr(AdapterModel, "_shown", killed)
            train_adapter(
                pack,
                small_base(),
                tmp_path,
                PLAN,
                config=TINY,
                measure_every=4,
                checkpoint_every=0,
                workers=workers % 2,
                log=lambda _: None,
            )
    assert left[0] == 99 - (4 + 2)
    found, again = load_checkpoint(tmp_path / "checkpoint")
    assert again["measured"] == progress["measured"]
    assert again["loss"] == progress["loss"]
    assert whole.keys() == found.keys()
    assert [name for name in whole if not torch.equal(whole[name], found[name])] == []


def test_a_checkpoint_of_another_run_is_refused(pack, trained):
    work, _ = trained
    for base, config, named in ((small_base(1), TINY, "base"), (small_base(), None, "adapter")):
        settings = {} if config is None else {"config": config}
        with pytest.raises(InputError, match=f"is of a run with {named}"):
            train_adapter(pack, base, work, PLAN, log=lambda _: None, **settings)


def by_diffusers(base, folder, **parts) -> FluxPipeline:
    """As the model card says."""
    pipeline = FluxPipeline(**base.components | parts)
    pipeline.load_ip_adapter(
        str(folder),
        weight_name=WEIGHTS,
        image_encoder_pretrained_model_name_or_path=str(folder / "image_encoder"),
        image_encoder_dtype=torch.float32,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_diffusers_loads_what_training_wrote(trained):
    work, _ = trained
    tensors, _ = load_checkpoint(work / "checkpoint")
    pipeline = by_diffusers(small_base(), work / "adapter")
    model = AdapterModel(pipeline)
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors[f"ema/{name}"]), name
    assert type(pipeline.feature_extractor) is CLIPImageProcessor
    assert pipeline.feature_extractor.size["shortest_edge"] == 32


def test_the_shipped_adapter_is_small_and_what_its_card_says():
    folder = adapter.folder()
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    card = (folder / "README.md").read_text()
    contents = json.loads((folder / "contents.json").read_text())["files"]
    for name in (WEIGHTS, "image_encoder/model.safetensors"):
        assert contents[name] in card
        assert f"{(folder / name).stat().st_size:,} bytes" in card
    record = json.loads((folder / "training.json").read_text())
    assert record["base"] == model_fingerprint(pocket.load())
    assert f"{record['steps']:,} steps" in card
    for count in record["samples"]:
        assert f"{count:,} samples" in card


def test_a_damaged_adapter_is_refused(tmp_path, trained):
    import shutil

    shutil.copytree(trained[0] / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / WEIGHTS
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))
    with pytest.raises(DamagedFileError, match=WEIGHTS):
        adapter.load_into(small_base(), tmp_path / "adapter")


@pytest.fixture(scope="module")
def shipped():
    return adapter.load()


def test_plain_diffusers_gives_the_same_image_from_windows(shipped):
    picture = pocket.samples()[1].image
    plain = by_diffusers(pocket.load(), adapter.folder())
    common = {"num_inference_steps": 2, "height": 128, "width": 128, "max_sequence_length": 32}
    images = []
    for pipeline, given in ((shipped, picture), (plain, windows(picture))):
        generator = torch.Generator().manual_seed(4)
        outcome = pipeline("it", ip_adapter_image=[given], generator=generator, **common)
        images.append(np.asarray(outcome.images[0]))
    np.testing.assert_array_equal(*images)


def test_each_prompt_of_a_batch_sees_its_own_picture(shipped):
    tasks = held_out_tasks(held_out()[:2], 0)
    both = generate(shipped, tasks, steps=2, seeds=[0, 1])
    for index, task in enumerate(tasks):
        (alone,) = generate(shipped, [task], steps=2, seeds=[index])
        assert np.abs(np.asarray(both[index], int) - np.asarray(alone, int)).max() <= 1
    none = generate(shipped, tasks, steps=2, seeds=[0, 1], with_reference=False)
    text = FluxPipeline(**pocket.load().components)
    text.set_progress_bar_config(disable=True)
    assert (
        np.asarray(none[0], int).tolist()
        == np.asarray(
            text(
                prompt=[task.caption for task in tasks],
                num_inference_steps=2,
                generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
                height=128,
                width=128,
                max_sequence_length=32,
            ).images[0],
            int,
        ).tolist()
    )
    assert not np.array_equal(np.asarray(none[0]), np.asarray(both[0]))


def test_an_evaluation_of_few_subjects(shipped):
    found = evaluate(shipped, subjects=2, steps=4, seed=1)
    assert found.subjects == 2
    assert found.retrieval["none"] == 0
    assert set(found.intervals) == {"full", "none", "swap", "background", "new scene"}


def test_a_probe_of_it_reads_ranks_and_prunes_128_tokens():
    import recast_probe as rp

    probe = rp.Probe.pocket(ip_adapter=True)
    sample = pocket.samples()[0]
    layout = probe.layout(sample.image)
    assert layout.reference_tokens == 128
    assert layout.references == (rp.Grid(1, 128, placed=False),)
    assert probe.family.facts()["ip_adapter"]["tokens_per_image"] == 128
    common = {"steps": 2, "seed": 5, "progress": False}
    arguments = probe.pipeline_arguments(sample.image, sample.prompts[0], steps=2, seed=5)
    plain = np.asarray(probe.pipe(**arguments).images[0])
    result = probe.generate(sample.image, sample.prompts[0], profile=True, **common)
    np.testing.assert_array_equal(np.asarray(result.image), plain)
    assert float(result.profile.mean_score().sum("token")) == pytest.approx(1, abs=1e-4)
    half = rp.Recast(64, "all")
    pruned = probe.generate(sample.image, sample.prompts[0], interventions=[half], **common)
    assert list(pruned.reference_tokens_per_step) == [128, 64]
    assert not np.array_equal(np.asarray(pruned.image), plain)
    two = probe.layout([sample.image, Image.new("RGB", (50, 40))])
    assert two.reference_tokens == 256
    with pytest.raises(UnsupportedPipelineError, match="Knockout"):
        probe.generate(
            sample.image,
            sample.prompts[0],
            interventions=[rp.Knockout("reference", "generation")],
            **common,
        )


def test_the_standard_plan():
    plan = standard_plan(10, seed=7, rate=2.0)
    assert [(stage.pixels, stage.samples, stage.rate) for stage in plan.stages] == [(128, 10, 2.0)]
    assert plan.seed == 7
