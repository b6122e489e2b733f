"""Patching: with itself nothing changes, with another run's reference stream all of it comes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions import Keep, Merge, Patch, Record, TokenCache, WithoutReference
from recast_probe.profiles.activations import IN_ATTENTION, WHAT, Activations, HookPoint
from recast_probe.testing import tiny

QUIET = {"steps": 2, "progress": False}
WHOLE_STREAM = ("residual", "embeddings")


@pytest.fixture(scope="module")
def other():
    return tiny.tiny_image(seed=9)


@pytest.fixture(scope="module")
def made(probe, image, other):
    """Pixels of the runs that are compared, by reference."""
    pairs = {"own": image, "other": other, "none": None}
    return {
        name: np.asarray(probe.generate(each, "fox", **QUIET).image) for name, each in pairs.items()
    }


@pytest.fixture(scope="module")
def everything(probe, other):
    """All activations of the run with the other reference."""
    return probe.record(other, "fox", WHAT, "all", **QUIET)


def pixels(probe, image, *patches, prompt="fox", **settings) -> np.ndarray:
    settings = {**QUIET, **settings}
    return np.asarray(probe.generate(image, prompt, interventions=patches, **settings).image)


def test_the_runs_differ(made):
    assert (made["own"] != made["other"]).any()
    assert (made["own"] != made["none"]).any()


def test_recording_changes_nothing_and_keeps_what_was_there(probe, image, made):
    result = probe.generate(image, "fox", interventions=[Record(WHAT, "all")], **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), made["own"])
    found = result.activations
    total, heads = result.provenance["layout"]["text"] + 32, tiny.HEADS
    assert found.values[HookPoint("keys", "conditional", 1, 4)].shape == (1, total, heads, 16)
    assert found.values[HookPoint("residual", "conditional", 0, 2)].shape == (1, total, heads * 16)
    assert len(found.values) == 2 * (4 * tiny.BLOCKS + 1)
    assert {value.device.type for value in found.values.values()} == {"cpu"}
    assert found.provenance["prompts"] == ["fox"]
    described = result.provenance["interventions"][0]
    assert described["bytes"] == found.bytes
    json.dumps(result.provenance)


def test_the_residual_is_what_the_blocks_pass_on(probe, image, pipeline):
    seen = []
    block = pipeline.transformer.single_transformer_blocks[1]
    hook = block.register_forward_hook(lambda _, __, output: seen.append(torch.cat(output, 1)))
    try:
        found = probe.record(image, "fox", tokens="all", blocks="single", **QUIET)
    finally:
        hook.remove()
    for step in (0, 1):
        torch.testing.assert_close(
            found.values[HookPoint("residual", "conditional", step, 3)], seen[step], rtol=0, atol=0
        )


@pytest.mark.parametrize("tokens", ["text", "generation", "reference", "all"])
@pytest.mark.parametrize("what", WHAT)
def test_patching_a_run_with_itself_changes_no_bit(probe, image, made, what, tokens):
    own = probe.record(image, "fox", what, tokens, **QUIET)
    np.testing.assert_array_equal(pixels(probe, image, Patch(own)), made["own"])


@pytest.mark.parametrize("what", [("keys", "values"), WHOLE_STREAM])
def test_the_whole_reference_stream_brings_the_other_image(probe, image, made, everything, what):
    patch = Patch(everything, what, "reference")
    np.testing.assert_array_equal(pixels(probe, image, patch), made["other"])


def test_part_of_the_stream_brings_part(probe, image, made, everything):
    for patch in (
        Patch(everything, ("keys", "values"), "reference", steps=0),
        Patch(everything, ("keys", "values"), "reference", blocks="double"),
        Patch(everything, ("keys", "values"), "reference", tuple(range(8))),
        Patch(everything, "values", "reference"),
        Patch(everything, "residual", "reference", blocks=2),
        Patch(everything, "attention output", "generation", blocks=1),
    ):
        found = pixels(probe, image, patch)
        assert (found != made["own"]).any(), patch.describe()
        assert (found != made["other"]).any(), patch.describe()
    # what the last block leaves in the reference stream is read by nobody
    last = Patch(everything, "residual", "reference", blocks=tiny.BLOCKS - 1)
    np.testing.assert_array_equal(pixels(probe, image, last), made["own"])


def test_the_generation_stream_is_the_image(probe, image, made, everything):
    patch = Patch(everything, "residual", "generation", blocks=tiny.BLOCKS - 1)
    np.testing.assert_array_equal(pixels(probe, image, patch), made["other"])


def test_patches_of_parts_are_the_patch_of_all(probe, image, made, everything):
    parts = [
        Patch(everything, what, "reference", indices)
        for what in ("keys", "values")
        for indices in (range(5), range(5, 16))
    ]
    np.testing.assert_array_equal(pixels(probe, image, *parts), made["other"])


def test_patches_act_in_their_order(probe, image, made, everything):
    own = probe.record(image, "fox", ("keys", "values"), **QUIET)
    there = Patch(everything, ("keys", "values"), "reference")
    np.testing.assert_array_equal(pixels(probe, image, there, Patch(own)), made["own"])
    np.testing.assert_array_equal(pixels(probe, image, Patch(own), there), made["other"])
    # a record sees what stands before it
    after = probe.record(image, "fox", "keys", interventions=[there], **QUIET)
    place = HookPoint("keys", "conditional", 1, 0)
    wanted = everything.select(place, after.positions)
    torch.testing.assert_close(after.values[place], wanted, rtol=0, atol=0)


def test_text_goes_into_a_run_without_reference(probe, made, everything):
    """Text tokens have the same positions, so only they need to be alike in both layouts."""
    found = pixels(probe, None, Patch(everything, "residual", "text"))
    assert (found != made["none"]).any()
    own = probe.record(None, "fox", tokens="text", **QUIET)
    np.testing.assert_array_equal(pixels(probe, None, Patch(own)), made["none"])


def test_both_branches_of_guidance_and_batches_of_prompts(probe, image, other):
    guided = {"true_cfg_scale": 2.0, "negative_prompt": "hen"}
    found = probe.record(other, "fox", ("keys", "values"), **QUIET, **guided)
    assert found.branches == ("conditional", "unconditional")
    wanted = pixels(probe, other, **guided)
    np.testing.assert_array_equal(pixels(probe, image, Patch(found), **guided), wanted)
    single = probe.record(other, "fox", ("keys", "values"), **QUIET)
    with pytest.raises(InputError, match="no unconditional branch"):
        probe.generate(image, "fox", interventions=[Patch(single)], **QUIET, **guided)
    # one prompt's activations serve all prompts of a batch
    batch = probe.generate(image, ["fox", "fox"], interventions=[Patch(single)], **QUIET)
    np.testing.assert_array_equal(np.asarray(batch.images[0]), np.asarray(batch.images[1]))
    both = probe.record(other, ["fox", "hen"], "keys", **QUIET)
    with pytest.raises(InputError, match="of 2 prompts, and this run has 1"):
        probe.generate(image, "fox", interventions=[Patch(both)], **QUIET)


def test_parts_of_the_text_make_up_the_text(probe, image, made, everything):
    parts = [Patch(everything, "residual", part) for part in ("padding", "prompt")]
    whole = pixels(probe, image, Patch(everything, "residual", "text"))
    np.testing.assert_array_equal(pixels(probe, image, *parts), whole)
    assert (pixels(probe, image, parts[0]) != whole).any()
    found = [probe.record(image, "fox", tokens=part, **QUIET) for part in ("padding", "prompt")]
    merged = np.sort(np.concatenate([each.positions for each in found]))
    np.testing.assert_array_equal(merged, np.arange(tiny.TEXT_TOKENS))
    np.testing.assert_array_equal(pixels(probe, image, *map(Patch, found)), made["own"])
    guided = {"true_cfg_scale": 2.0, "negative_prompt": "a longer one"}
    with pytest.raises(InputError, match="negative prompt stand at other positions"):
        probe.record(image, "fox", tokens="padding", **QUIET, **guided)


@pytest.mark.parametrize(
    "record",
    [
        Record(),
        Record(WHAT, "all"),
        Record(("keys", "embeddings"), "text", (0, 3), blocks=[1, 2], steps=1),
        Record("values", "reference_0", steps=(0, 1)),
    ],
)
def test_memory_is_stated_beforehand_to_the_byte(probe, image, record):
    stated = probe.recording_bytes(record, image, "fox", steps=2)
    found = probe.generate(image, "fox", interventions=[record], **QUIET).activations
    assert found.bytes == stated
    assert stated > 0


def test_more_memory_than_the_limit_is_refused_before_anything_runs(probe, image, monkeypatch):
    needed = probe.recording_bytes(Record(), image, "fox", steps=2)
    assert probe.record(image, "fox", limit=needed, **QUIET).bytes == needed
    monkeypatch.setattr(
        type(probe.pipe), "__call__", lambda *_, **__: pytest.fail("the pipeline ran")
    )
    with pytest.raises(InputError, match=f"{needed:,} bytes"):
        probe.record(image, "fox", limit=needed - 1, **QUIET)


def test_precision_is_that_of_the_run(image):
    from recast_probe.probe import Probe

    half = Probe(tiny.build_tiny_pipeline().to(torch.bfloat16))
    found = half.record(image, "fox", WHAT, "all", **QUIET)
    assert {value.dtype for value in found.values.values()} == {torch.bfloat16}
    assert found.bytes == half.recording_bytes(Record(WHAT, "all"), image, "fox", steps=2)
    own = np.asarray(half.generate(image, "fox", **QUIET).image)
    np.testing.assert_array_equal(pixels(half, image, Patch(found)), own)
    single = Activations(
        {place: value.float() for place, value in found.values.items()},
        *(found.positions, found.tokens, found.layout, found.timesteps, found.block_kinds),
    )
    with pytest.raises(InputError, match=r"float32, and the model runs in torch\.bfloat16"):
        half.generate(image, "fox", interventions=[Patch(single)], **QUIET)


def test_files_come_back_whole(tmp_path, probe, image, other, made):
    found = probe.record(other, "fox", ("keys", "values"), **QUIET)
    path = found.save(tmp_path / "other.safetensors")
    back = Activations.load(path)
    assert repr(back) == repr(found)
    assert back.provenance == found.provenance
    assert back.sha256 == found.sha256
    np.testing.assert_array_equal(pixels(probe, image, Patch(back)), made["other"])
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="checksum"):
        Activations.load(path)
    path.write_bytes(data[:-50])
    with pytest.raises(InputError, match="damaged"):
        Activations.load(path)
    torch_file = tmp_path / "foreign.safetensors"
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, torch_file)
    with pytest.raises(InputError, match="no activations of recast_probe"):
        Activations.load(torch_file)
    with pytest.raises(InputError, match="no file"):
        Activations.load(tmp_path / "nothing.safetensors")
    with pytest.raises(InputError, match=r"saved as \.safetensors"):
        found.save(tmp_path / "other.pt")


def test_patches_act_beside_pruning_where_they_can(probe, image, everything):
    text = Patch(everything, "residual", "text")
    pruned = [Keep((0, 1, 2), start=1)]
    assert (pixels(probe, image, text, *pruned) != pixels(probe, image, *pruned)).any()
    reference = Patch(everything, "keys", "reference")
    with pytest.raises(InputError, match="needs the full reference in step 1"):
        pixels(probe, image, reference, *pruned)
    pixels(probe, image, Patch(everything, "keys", "reference", steps=0), *pruned)
    with pytest.raises(InputError, match="cannot be done while"):
        pixels(probe, image, text, Merge(4))
    with pytest.raises(InputError, match="cannot be done while"):
        pixels(probe, image, text, TokenCache(interval=2, first_full=1))
    with pytest.raises(InputError, match="full reference"):
        pixels(probe, image, Record(), WithoutReference())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"what": "queries"}, "what is one or several of"),
        ({"what": ()}, "what is one or several of"),
        ({"tokens": "pixels"}, "no token group"),
        ({"tokens": "reference", "indices": (3, 99)}, "holds 99.*reference tokens 0-15"),
        ({"tokens": "reference", "indices": ()}, "indices selects nothing"),
        ({"blocks": 99}, "no block 99"),
        ({"steps": 7}, "steps holds 7"),
        ({"steps": ()}, "steps selects nothing"),
    ],
)
def test_what_is_not_there_is_refused(probe, image, everything, settings, message):
    for kind in (Record, lambda **given: Patch(everything, **given)):
        with pytest.raises(InputError, match=message):
            probe.generate(image, "fox", interventions=[kind(**settings)], **QUIET)


def test_runs_that_do_not_fit_are_refused(probe, image, everything, made):
    keys = Patch(everything, "keys", "reference")
    with pytest.raises(InputError, match="not at the same timestep"):
        probe.generate(image, "fox", 3, interventions=[keys], progress=False)
    with pytest.raises(InputError, match="reference tokens of the two runs differ"):
        pixels(probe, tiny.tiny_image(96, 48), keys)
    with pytest.raises(InputError, match="no reference tokens"):
        pixels(probe, None, keys)
    few = probe.record(image, "fox", "keys", blocks=[1, 2], record_steps=0, **QUIET)
    assert len(few.values) == 2
    with pytest.raises(InputError, match="No keys of block 0, step 0"):
        pixels(probe, image, Patch(few, blocks="all"))
    with pytest.raises(InputError, match="No values of block 1"):
        pixels(probe, image, Patch(few, "values"))
    with pytest.raises(InputError, match="lacks some of the tokens"):
        pixels(probe, image, Patch(few, tokens="text"))
    with pytest.raises(InputError, match="record the activations of one run twice"):
        pixels(probe, image, Record("keys"), Record("values"))
    with pytest.raises(InputError, match="takes recorded activations"):
        Patch(made)
    with pytest.raises(InputError, match="give tokens as well"):
        Patch(few, indices=(1,))


def test_attention_that_cannot_be_replaced_is_not_patched(adapter_probe, image):
    for what in (*IN_ATTENTION, "residual"):
        with pytest.raises(UnsupportedPipelineError):
            adapter_probe.record(image, "fox", what, **QUIET)


def test_hooks_are_gone_afterwards(probe, image, pipeline, everything):
    def hooks():
        return [
            len(block._forward_hooks) + len(block._forward_pre_hooks)
            for block in probe.family.block_modules()
        ]

    before = hooks()
    pixels(probe, image, Patch(everything, WHOLE_STREAM, "reference"), Record(WHOLE_STREAM))
    assert hooks() == before
