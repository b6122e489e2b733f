"""The shipped model: small, plain, and it has learned to copy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recast_probe import pocket
from recast_probe.errors import InputError
from recast_probe.pocket.evaluate import evaluate
from recast_probe.pocket.held_out_tasks import REFERENCES, held_out_tasks
from recast_probe.pocket.scenes import Placement
from recast_probe.pocket.subjects import held_out
from recast_probe.probe import Probe


@pytest.fixture(scope="module")
def probe():
    return Probe.pocket()


def test_the_shipped_folder_is_a_small_plain_kontext(probe):
    from diffusers import FluxKontextPipeline

    assert type(probe.pipe) is FluxKontextPipeline
    files = list(pocket.folder().rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 20_000_000
    assert not list(pocket.folder().rglob("*.bin"))
    config = probe.pipe.transformer.config
    assert config.num_layers >= 2
    assert config.num_single_layers >= 6
    assert config.num_attention_heads >= 4
    layout = probe.layout(pocket.samples()[0].image)
    assert layout.generation.size == 256
    assert layout.reference_tokens == 256


def test_profiling_and_keeping_everything_change_nothing(probe):
    import recast_probe as rp

    sample = pocket.samples()[0]
    arguments = probe.pipeline_arguments(sample.image, sample.prompts[0], steps=3, seed=5)
    plain = np.asarray(probe.pipe(**arguments).images[0])
    profiled = probe.generate(
        sample.image, sample.prompts[0], steps=3, seed=5, profile=True, progress=False
    )
    everything = rp.Prune(rp.rank.random(256, seed=0), 256)
    kept = probe.generate(
        sample.image, sample.prompts[0], steps=3, seed=5, interventions=[everything], progress=False
    )
    np.testing.assert_array_equal(np.asarray(profiled.image), plain)
    np.testing.assert_array_equal(np.asarray(kept.image), plain)


@pytest.mark.parametrize("references", REFERENCES)
def test_held_out_tasks_are_fixed_by_their_seed(references):
    first, again = (held_out_tasks(held_out()[:6], 3, references) for _ in range(2))
    assert first == again
    assert [task.kind for task in first] == ["background", "new scene"] * 3
    for task, subject in zip(first, held_out(), strict=False):
        assert subject.name not in task.caption or len(subject.name) < 3


def test_each_domain_has_its_references_where_it_says():
    middle, anywhere = (held_out_tasks(held_out(), 0, references) for references in REFERENCES)
    centres = [Placement.named(size, "middle", "center") for size in ("medium", "large")]
    assert all(task.reference.placement in centres for task in middle)
    assert 5 < sum(task.reference.placement in centres for task in anywhere) < 40
    for task in middle:
        before, after = task.reference.placement, task.target.placement
        assert after.side == before.side
        assert (after == before) == (task.kind == "background")
    moved = [task for task in anywhere if task.kind == "new scene"]
    resized = [t.reference.placement.side != t.target.placement.side for t in moved]
    assert 0.3 < np.mean(resized) < 0.7
    with pytest.raises(InputError, match="choose middle or anywhere"):
        held_out_tasks(held_out()[:2], 0, "center")


def test_held_out_subjects_are_copied_and_moved_and_only_through_the_reference(probe):
    said = []
    found = evaluate(probe.pipe, subjects=8, steps=8, seed=1, batch=4, announce=said.append)
    # one in 150 by chance; the full evaluation is `recast-probe pocket evaluate`
    assert found.retrieval["full"] >= 0.6
    assert found.retrieval_by_kind["new scene"] >= 0.5
    assert found.retrieval["none"] <= 0.1
    assert found.swap_follows >= 0.8
    assert said == [said[0]]
    assert said[0].startswith("24 images of 8 steps, about ")
    for name, share in {**found.retrieval, **found.retrieval_by_kind}.items():
        low, high = found.intervals[name]
        assert 0 <= low <= share <= high <= 1
        assert high - low > 0.1  # eight are few


def test_the_evaluation_refuses_impossible_sizes(probe):
    with pytest.raises(InputError, match="2 to 150"):
        evaluate(probe.pipe, subjects=151)


def test_random_weights_do_not_retrieve():
    """A null control: the measure gives chance when nothing was learned."""
    pipeline = pocket.load()
    torch.manual_seed(0)
    for parameter in pipeline.transformer.parameters():
        parameter.data = torch.randn_like(parameter) * 0.02
    found = evaluate(pipeline, subjects=3, steps=2, seed=0)
    assert found.retrieval["full"] <= 0.2
