"""Training: checkpoints come back whole, a slice resumes, and learning really happens."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recast_probe import pocket
from recast_probe.errors import DamagedFileError, InputError, VerificationError
from recast_probe.files import atomic
from recast_probe.pocket import recipe
from recast_probe.pocket.architecture import PocketConfig, build_autoencoder
from recast_probe.pocket.autoencoder import normalise_latents, to_tensor
from recast_probe.pocket.checkpoint import load_checkpoint, save_checkpoint
from recast_probe.pocket.cpu_attention import WrittenOutAttention
from recast_probe.pocket.data import LatentPool
from recast_probe.pocket.flow import FlowModel, arithmetic
from recast_probe.pocket.optimisers import WEIGHT_DECAY, Optimisers
from recast_probe.pocket.scenes import sample_task
from recast_probe.pocket.subjects import held_out, load_pack
from recast_probe.pocket.text import load_tokenizers, make_tokenizers
from recast_probe.pocket.train import (
    Stage,
    TrainingPlan,
    export,
    learning_rate_share,
    train,
)

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


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pocket")
    subjects = held_out()[:6]
    np.savez(
        folder / "subjects.npz",
        rgba=np.stack([s.rgba for s in subjects]),
        key=np.array([s.key for s in subjects]),
        name=np.array([s.name for s in subjects]),
        style=np.array([s.style for s in subjects]),
    )
    rng = np.random.default_rng(0)
    make_tokenizers([sample_task(subjects, rng).caption for _ in range(2000)], folder)
    torch.manual_seed(0)
    return folder, build_autoencoder(SMALL).eval()


def test_checkpoints_round_trip_in_small_files(tmp_path):
    tensors = {f"t{i}": torch.randn(1_500_000) for i in range(5)}
    save_checkpoint(tmp_path / "c", tensors, {"steps": 3})
    save_checkpoint(tmp_path / "c", tensors, {"steps": 4})
    loaded, progress = load_checkpoint(tmp_path / "c")
    assert progress == {"steps": 4}
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    sizes = [path.stat().st_size for path in (tmp_path / "c").glob("*.safetensors")]
    assert len(sizes) > 1
    assert max(sizes) < 16_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


class Killed(BaseException):
    """In place of a kill at some step of the swap."""


@pytest.mark.parametrize("at", range(5))
def test_a_checkpoint_is_there_wherever_a_save_was_killed(tmp_path, monkeypatch, at):
    """After `at` renames and removals nothing more happens, as after kill -9."""
    folder, left = tmp_path / "c", [at]
    save_checkpoint(folder, {"a": torch.ones(3)}, {"steps": 1})

    def stops(action):
        def act(*arguments, **settings):
            if left[0] <= 0:
                raise Killed
            left[0] -= 1
            return action(*arguments, **settings)

        return act

    with monkeypatch.context() as patched:
        patched.setattr(atomic.os, "replace", stops(os.replace))
        patched.setattr(atomic.shutil, "rmtree", stops(shutil.rmtree))
        with suppress(Killed):
            save_checkpoint(folder, {"a": 2 * torch.ones(3)}, {"steps": 2})
    tensors, progress = load_checkpoint(folder)
    assert tensors["a"].tolist() == [progress["steps"]] * 3
    # the next save mends what is left
    save_checkpoint(folder, {"a": 3 * torch.ones(3)}, {"steps": 3})
    assert load_checkpoint(folder)[1] == {"steps": 3}
    assert not atomic.previous(folder).exists()


@pytest.mark.parametrize("name", ["autoencoder", "tokenizer", "tokenizer_2"])
def test_a_damaged_part_of_the_work_is_refused(workplace, tmp_path, monkeypatch, name):
    folder, autoencoder = workplace
    calls = []
    monkeypatch.setattr(recipe, "train_autoencoder", lambda *_, **__: calls.append("autoencoder"))
    monkeypatch.setattr(recipe, "build_autoencoder", lambda _: autoencoder)
    monkeypatch.setattr(recipe, "train", lambda *_, **__: {"samples": [0, 0]})
    monkeypatch.setattr(recipe, "export", lambda *_: None)
    monkeypatch.setattr(recipe, "CAPTIONS", 2000)

    def run():
        return recipe.run(
            folder / "subjects.npz", tmp_path, small_samples=0, full_samples=0, config=SMALL
        )

    assert run()["finished"]
    run()
    assert calls == ["autoencoder"]
    largest = max((tmp_path / name).iterdir(), key=lambda path: path.stat().st_size)
    whole = largest.read_bytes()
    largest.write_bytes(whole[:-100] + bytes(100))
    with pytest.raises(DamagedFileError, match=largest.name):
        run()
    largest.unlink()
    with pytest.raises(DamagedFileError, match=largest.name):
        run()
    largest.write_bytes(whole)
    run()
    assert calls == ["autoencoder"]
    # half written by an earlier version: nothing says that it is whole
    (tmp_path / name / "contents.json").unlink()
    with pytest.raises(DamagedFileError, match="Remove it"):
        run()


def test_missing_checkpoint_and_pack_say_so(tmp_path):
    with pytest.raises(InputError, match=r"progress\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(InputError, match="pocket assets"):
        load_pack(tmp_path / "subjects.npz")


def test_learning_rate_warms_up_stays_and_decays_to_nearly_zero():
    plan = TrainingPlan.standard(1000, 1000)
    shares = [learning_rate_share(plan, [n, 0]) for n in (0, 1000)]
    shares += [learning_rate_share(plan, [1000, n]) for n in (800, 1000)]
    assert shares[0] < 0.1
    assert shares[1] == 1.0
    assert 0.02 < shares[2] < 1.0
    assert shares[3] == pytest.approx(0.02)


def test_training_resumes_learns_and_exports_a_plain_pipeline(workplace, tmp_path):
    from diffusers import FluxKontextPipeline

    folder, autoencoder = workplace
    lines: list[str] = []
    common = {"config": SMALL, "log": lines.append}
    short = TrainingPlan((Stage(64, 60, 4), Stage(128, 0, 4)), capacity=32)
    first = train(folder / "subjects.npz", autoencoder, folder, tmp_path / "c", short, **common)
    # longer, and with one stage more than the checkpoint knows
    stages = (Stage(64, 196, 4), Stage(128, 0, 4), Stage(128, 8, 4))
    longer = TrainingPlan(stages, capacity=32)
    progress = train(folder / "subjects.npz", autoencoder, folder, tmp_path / "c", longer, **common)
    assert any(line.startswith("resumed at step 15") for line in lines)
    assert progress["samples"] == [196, 0, 8]
    assert progress["steps"] == 51
    (line,) = (line for line in lines if "loss" in line)
    assert float(line.split("loss ")[1].split(",")[0]) < first["loss"]
    export(tmp_path / "c", autoencoder, folder, tmp_path / "model")
    pipeline = FluxKontextPipeline.from_pretrained(tmp_path / "model", local_files_only=True)
    tensors, _ = load_checkpoint(tmp_path / "c")
    weight = tensors["ema/transformer.x_embedder.weight"]
    assert torch.equal(pipeline.transformer.x_embedder.weight, weight)
    assert json.loads((tmp_path / "c" / "progress.json").read_text())["steps"] == 51


def test_a_run_that_was_killed_equals_one_that_was_not(workplace, tmp_path, monkeypatch):
    """Weights, averages and both optimisers' states, to the last bit, however many workers."""
    folder, autoencoder = workplace
    plan = TrainingPlan((Stage(64, 16, 2), Stage(128, 4, 2)), capacity=16, reuse=2, seed=3)
    arguments = (folder / "subjects.npz", autoencoder, folder)
    settings = {"config": SMALL, "log": lambda _: None}
    train(*arguments, tmp_path / "whole", plan, **settings)
    loss, left = FlowModel.velocity_loss, [0]

    def killed(*given, **named):
        if left[0] == 0:
            raise Killed
        left[0] -= 1
        return loss(*given, **named)

    for workers, steps in enumerate((1, 3, 5, 99)):  # of 8 and 2
        with monkeypatch.context() as patched, suppress(Killed):
            left[0] = steps
            patched.setattr(FlowModel, "velocity_loss", killed)
            train(
                *arguments,
                tmp_path / "c",
                plan,
                checkpoint_every=0,
                workers=workers % 2,
                **settings,
            )
    (whole, progress), (found, again) = (load_checkpoint(tmp_path / n) for n in ("whole", "c"))
    assert left[0] == 99 - 1  # the last call had one step to do
    assert again["steps"] == progress["steps"] == 10
    assert again["loss"] == progress["loss"]
    assert whole.keys() == found.keys()
    assert {name.split("/")[1] for name in whole if name.startswith("optimiser/")} == {
        "momentum_buffer",
        "exp_avg",
        "exp_avg_sq",
        "step",
    }
    assert [name for name in whole if not torch.equal(whole[name], found[name])] == []


def test_a_checkpoint_goes_on_with_its_own_draws_only(workplace, tmp_path):
    """Weights of two seeds would be told to be of the last."""
    folder, autoencoder = workplace
    arguments = (folder / "subjects.npz", autoencoder, folder, tmp_path / "c")
    settings = {"config": SMALL, "log": lambda _: None}
    train(*arguments, TrainingPlan((Stage(64, 4, 2), Stage(128, 0, 2)), seed=3), **settings)
    others = {
        "with seed 3, and this one has 4": ((Stage(64, 6, 2), Stage(128, 0, 2)), 4),
        "with batch in stage 0 2, and this one has 4": ((Stage(64, 8, 4), Stage(128, 0, 2)), 3),
        "with pixels in stage 0 64, and this one": ((Stage(128, 6, 2), Stage(128, 0, 2)), 3),
    }
    for words, (stages, seed) in others.items():
        with pytest.raises(InputError, match=words):
            train(*arguments, TrainingPlan(stages, seed=seed), **settings)
    for name, other in (("reuse", 5), ("capacity", 512)):
        plan = TrainingPlan((Stage(64, 6, 2), Stage(128, 0, 2)), seed=3, **{name: other})
        with pytest.raises(InputError, match=f"with {name} .*, and this one has {other}"):
            train(*arguments, plan, **settings)
    # a stage that has not begun may be another one, or be left out
    alone = TrainingPlan((Stage(64, 6, 2),), seed=3)
    record = train(*arguments, alone, **settings)
    assert record["samples"] == [6]
    assert [each["samples"] for each in record["plans_before"]] == [[4]]
    later = TrainingPlan((Stage(64, 6, 2), Stage(64, 2, 1)), seed=3)
    record = train(*arguments, later, **settings)
    assert record["samples"] == [6, 2]
    # the record says by which plans it was made, and until when
    made = [
        (each["samples"], [stage["samples"] for stage in each["plan"]["stages"]])
        for each in record["plans_before"]
    ]
    assert made == [([4], [4, 0]), ([6, 0], [6])]
    assert train(*arguments, later, **settings)["plans_before"] == record["plans_before"]
    with pytest.raises(InputError, match="with 2 stages, and this one has 1"):
        train(*arguments, alone, **settings)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_a_step_that_went_wrong_leaves_the_checkpoint_as_it_was(
    workplace, tmp_path, monkeypatch, broken
):
    folder, autoencoder = workplace
    plan = TrainingPlan((Stage(64, 12, 2),), capacity=16)
    loss, steps = FlowModel.velocity_loss, []

    def wrong(model, *given, **named):
        steps.append(None)
        found = loss(model, *given, **named)
        if len(steps) < 4:
            return found
        # the gradient of a root at 0 is infinite, and 0 times it is NaN
        return found * torch.nan if broken == "loss" else found + 0 * (0 * found).sqrt()

    monkeypatch.setattr(FlowModel, "velocity_loss", wrong)
    with pytest.raises(VerificationError, match="went wrong in step 3: its loss is"):
        train(
            folder / "subjects.npz", autoencoder, folder, tmp_path / "c", plan,
            config=SMALL, checkpoint_every=0, log=lambda _: None,
        )  # fmt: skip
    tensors, progress = load_checkpoint(tmp_path / "c")
    assert progress["steps"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_muon_has_the_blocks_matrices_and_adamw_the_rest(workplace):
    folder, _ = workplace
    model = FlowModel(SMALL, folder)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    torch.manual_seed(4)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimisers = Optimisers(model)
    optimisers.step(1e-3)
    state = optimisers.state()
    by_muon = {name.split("/", 1)[1] for name in state if name.startswith("momentum_buffer/")}
    assert by_muon == {
        name for name, value in before.items() if "transformer_blocks." in name and value.ndim == 2
    }
    for name, value in model.named_parameters():
        assert value.grad is None
        decay = WEIGHT_DECAY * (1e-2 if name in by_muon else 1e-3)
        step = value.detach() - before[name] * (1 - decay)
        if name in by_muon:
            # an orthogonal matrix, roughly: all singular values near one another
            rows, columns = value.shape
            sizes = torch.linalg.svdvals(step) / (1e-2 * max(1, rows / columns) ** 0.5)
            assert 0.5 < sizes.quantile(0.1) < sizes.max() < 1.3
        else:
            # AdamW's first step has the learning rate's size everywhere
            torch.testing.assert_close(
                step.abs(), torch.full_like(step, 1e-3), rtol=1e-2, atol=1e-5
            )


def test_training_goes_on_from_given_weights_and_says_what_is_wrong_with_others(
    workplace, tmp_path
):
    folder, autoencoder = workplace
    torch.manual_seed(5)
    model = FlowModel(SMALL, folder)
    state = {f"model/{name}": value.clone() for name, value in model.state_dict().items()}
    save_file(state, tmp_path / "given.safetensors")
    plan = TrainingPlan((Stage(64, 0, 4),))
    arguments = (folder / "subjects.npz", autoencoder, folder)
    init = tmp_path / "given.safetensors"

    def begin(name, weights):
        quiet = {"config": SMALL, "log": lambda _: None}
        train(*arguments, tmp_path / name, plan, init=weights, **quiet)

    begin("c", init)
    # where there is a checkpoint, they are not looked at
    begin("c", tmp_path / "none.safetensors")
    tensors, progress = load_checkpoint(tmp_path / "c")
    assert progress["steps"] == 0
    for name, value in state.items():
        assert torch.equal(tensors[name], value)
        assert torch.equal(tensors[name.replace("model/", "ema/")], value)
    # a checkpoint without the state of the optimisers is not taken for one that has it
    save_checkpoint(tmp_path / "c", tensors, {"steps": 0, "samples": [0], "seconds": 0.0})
    with pytest.raises(InputError, match="earlier recast_probe"):
        begin("c", init)
    name, value = next(iter(state.items()))
    others = {
        "missing": {n: v for n, v in state.items() if n != name},
        "additional": state | {"model/more": value.clone()},
        "shape": state | {name: torch.zeros(3)},
    }
    for kind, wrong in others.items():
        save_file(wrong, tmp_path / f"{kind}.safetensors")
        with pytest.raises(InputError, match="not those of this model"):
            begin("d", tmp_path / f"{kind}.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(init.read_bytes()[:1000])
    for wrong in ("cut", "none"):
        with pytest.raises(InputError, match="cannot be read"):
            begin("d", tmp_path / f"{wrong}.safetensors")


def test_what_ships_is_what_the_recipe_writes(workplace, tmp_path):
    """The shipped weights, read in and written out again without a step, are the same files."""
    pack = workplace[0] / "subjects.npz"
    pipeline = pocket.load()
    parts = {
        "transformer": pipeline.transformer,
        "clip": pipeline.text_encoder,
        "t5": pipeline.text_encoder_2,
    }
    state = {
        f"model/{part}.{name}": value.clone()
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    save_file(state, tmp_path / "averaged.safetensors")
    progress = recipe.run(
        pack,
        tmp_path / "work",
        small_samples=0,
        full_samples=0,
        init=tmp_path / "averaged.safetensors",
    )
    assert progress["finished"]
    shipped, made = pocket.folder(), tmp_path / "work" / "model"
    names = {path.relative_to(shipped) for path in shipped.rglob("*") if path.is_file()}
    assert {path.relative_to(made) for path in made.rglob("*") if path.is_file()} == names - {
        Path("README.md")
    }
    for name in names - {Path("README.md"), Path("contents.json")}:
        assert (made / name).read_bytes() == (shipped / name).read_bytes(), name


def test_half_precision_on_a_cpu_gives_the_same_loss(workplace):
    folder, autoencoder = workplace
    torch.manual_seed(2)
    model = FlowModel(SMALL, folder)
    torch.nn.init.normal_(model.transformer.proj_out.weight, std=0.1)
    pool = LatentPool(
        autoencoder,
        list(held_out()[:4]),
        pixels=64,
        batch=4,
        capacity=8,
        reuse=1,
        seed=(0,),
        workers=0,
        device="cpu",
    )
    batch = pool.draw()
    found = {}
    for precision in (torch.float32, torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        model.zero_grad()
        with arithmetic("cpu", precision):
            loss = model.velocity_loss(batch, with_reference=True, generator=generator)
        loss.backward()
        gradient = model.transformer.x_embedder.weight.grad.clone()
        found[precision] = loss.item(), gradient
    (exact, exact_gradient), (half, half_gradient) = found.values()
    assert half != exact
    assert half == pytest.approx(exact, rel=1e-2)
    alike = torch.nn.functional.cosine_similarity(
        half_gradient.flatten(), exact_gradient.flatten(), dim=0
    )
    assert alike > 0.99


def test_written_out_attention_is_attention():
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, 3, 17, 8).to(torch.bfloat16) for _ in range(3))
    plain = torch.nn.functional.scaled_dot_product_attention
    with WrittenOutAttention():
        found = plain(query, key=key, value=value, scale=0.2)
        causal = plain(query, key, value, is_causal=True)
    torch.testing.assert_close(found, plain(query, key, value, scale=0.2), atol=0.02, rtol=0.02)
    torch.testing.assert_close(causal, plain(query, key, value, is_causal=True), atol=0, rtol=0)


def test_normalised_latents_leave_the_reconstruction_as_it_was():
    torch.manual_seed(1)
    autoencoder = build_autoencoder(SMALL).eval()
    subjects = list(held_out()[:4])
    pixels = to_tensor(sample_task(subjects, np.random.default_rng(0)).target.render()[0])[None]
    with torch.no_grad():
        before = autoencoder.decode(autoencoder.encode(pixels).latent_dist.mean).sample
        normalise_latents(autoencoder, subjects, pictures=32)
        latents = autoencoder.encode(pixels).latent_dist.mean
        after = autoencoder.decode(latents).sample
    torch.testing.assert_close(after, before, atol=2e-4, rtol=1e-3)


def test_tokenizers_keep_words_whole_and_ignore_case(workplace):
    folder, _ = workplace
    clip, t5 = load_tokenizers(folder)
    caption = "the subject on gravel, medium, top left"
    assert clip(caption).input_ids == clip(caption.upper()).input_ids
    assert t5(caption).input_ids == t5(caption.upper()).input_ids
    assert t5.unk_token_id not in t5(caption).input_ids
    assert t5.decode(t5(caption).input_ids, skip_special_tokens=True) == caption
    assert len(clip(caption).input_ids) == 11
