"""The text-to-image lens shows what text tokens carry, and nothing where they carry nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recast_probe as rp
from recast_probe import figures
from recast_probe.errors import InputError
from recast_probe.experiments.block_groups import windows
from recast_probe.interventions import Patch
from recast_probe.probe import Probe
from recast_probe.testing import tiny

QUIET = {"steps": 3, "progress": False}


def test_windows():
    assert windows([0, 1, 2, 5, 6], 2) == [(0, 1), (2, 5), (6,)]
    assert windows([0, 1, 2], None) == [(0, 1, 2)]
    assert windows([4], 3) == [(4,)]
    with pytest.raises(InputError, match="at least 1"):
        windows([1], 0)


def test_the_lens_is_a_patch_of_text_in_a_run_without_reference(probe, image):
    lens = rp.text_lens(
        probe, image, "fox", blocks=[0, 2, 3], block_window=2, step_window=2, **QUIET
    )
    assert lens.blocks == [(0, 2), (3,)]
    assert lens.patched_steps == [(0, 1), (2,)]
    source = probe.record(image, "fox", tokens="text", **QUIET)
    for (blocks, steps), made in lens.images.items():
        wanted = probe.generate(
            None, "fox", interventions=[Patch(source, blocks=blocks, steps=steps)], **QUIET
        )
        np.testing.assert_array_equal(np.asarray(made), np.asarray(wanted.image))
    plain = probe.generate(None, "fox", **QUIET).image
    np.testing.assert_array_equal(np.asarray(lens.without), np.asarray(plain))
    change = lens.change()
    assert change.dims == ("block", "step")
    assert change["step"].values.tolist() == ["0-1", "2"]
    assert (change > 0).any()
    rows, labels = lens.rows()
    assert labels == ["text after block 0, 2", "text after block 3"]
    figures.plot_images(rows, labels, selection="tiny")


def test_by_default_every_step_is_patched(probe, image):
    lens = rp.text_lens(probe, image, "fox", blocks="single", **QUIET)
    assert lens.patched_steps == [(0, 1, 2)]
    assert lens.blocks == [(2,), (3,), (4,)]
    # nothing reads the text that leaves the last block
    assert float(lens.change().sel(block="4", step="0-2")) == 0


def test_text_that_does_not_read_the_reference_brings_nothing(image):
    """Text attention planted blind: its gates are shut in double-stream blocks, and what
    single-stream blocks would add comes through attention, whose output is shut too."""
    pipe = tiny.build_tiny_pipeline(seed=1)
    with torch.no_grad():
        for block in pipe.transformer.transformer_blocks:
            block.attn.to_add_out.weight.zero_()
        for block in pipe.transformer.single_transformer_blocks:
            block.proj_out.weight[:, : tiny.HEADS * tiny.HEAD_DIMENSION].zero_()
    lens = rp.text_lens(Probe(pipe), image, "fox", **QUIET)
    np.testing.assert_array_equal(lens.change(), 0)
    assert (np.asarray(lens.full) != np.asarray(lens.without)).any()


def test_what_cannot_be_shown_is_refused(probe, image):
    with pytest.raises(InputError, match="one prompt"):
        rp.text_lens(probe, image, ["fox", "hen"], **QUIET)
    with pytest.raises(InputError, match="not 'generation'"):
        rp.text_lens(probe, image, "fox", tokens="generation", **QUIET)
    with pytest.raises(InputError, match="no reference"):
        rp.text_lens(probe, None, "fox", **QUIET)
    with pytest.raises(InputError, match="at least 1"):
        rp.text_lens(probe, image, "fox", block_window=0, **QUIET)
    with pytest.raises(InputError, match="limit"):
        rp.text_lens(probe, image, "fox", limit=10, **QUIET)
