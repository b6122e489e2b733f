"""Drift of keys and values: zero where nothing moves, and the plain image."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import recast_probe as rp
from recast_probe.diagnostics.drift import Drift
from recast_probe.errors import InputError
from recast_probe.figures import plot_drift
from recast_probe.interventions import Prune, ReuseReference
from recast_probe.interventions.drift import RecordDrift
from recast_probe.selection.rankings import random
from tests.interventions.test_reuse import Watch

QUIET = {"steps": 4, "progress": False}


def test_the_errors_are_those_of_what_attention_was_given(probe, plain, image):
    watch = Watch()
    result = probe.generate(image, "fox", interventions=[RecordDrift((0, 2)), watch], **QUIET)
    np.testing.assert_array_equal(np.asarray(result.image), plain(image, "fox", steps=4))
    drift = Drift.build(result.outcomes[0], np.arange(4.0), probe.block_kinds, "tiny")
    for source, step in ((0, 1), (0, 3), (2, 3)):
        for block in (0, 3):
            old, new = (watch.inputs[each, "conditional", block] for each in (source, step))
            found = drift.errors.sel(source=source, step=step, block=block, branch="conditional")
            for name in ("key", "value"):
                a, b = (getattr(each, name)[:, -16:].double() for each in (old, new))
                assert float(found[name]) == pytest.approx(float((a - b).norm() / b.norm()))
            query, key, value = (
                each.double().transpose(1, 2)
                for each in (
                    new.query[:, 12:28],
                    torch.cat([new.key[:, :28], old.key[:, 28:]], 1),
                    torch.cat([new.value[:, :28], old.value[:, 28:]], 1),
                )
            )
            weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
            output = watch.outputs[step, "conditional", block][:, 12:28].double()
            error = ((weights @ value).transpose(1, 2) - output).norm() / output.norm()
            assert float(found["output"]) == pytest.approx(float(error), rel=1e-4)


def test_labels_sources_and_branches(probe, image):
    """Steps up to the source are NaN; later ones are errors above zero, for each branch."""
    drift = rp.drift(
        probe, image, "fox", sources=[1], true_cfg_scale=2.0, negative_prompt="x", **QUIET
    )
    assert drift.errors["key"].dims == ("source", "branch", "step", "block")
    assert list(drift.errors["branch"].values) == ["conditional", "unconditional"]
    for name in ("key", "value", "output"):
        values = drift.errors[name].sel(source=1)
        assert np.isnan(values.sel(step=[0, 1])).all()
        assert (values.sel(step=[2, 3]) > 0).all()
    # the branches have prompts of their own
    both = drift.errors["value"].sel(source=1, block=2, step=3).values
    assert both[0] != both[1]
    assert "mean relative error" in repr(drift)
    assert plot_drift(drift).axes


def test_what_cannot_be(probe, image):
    with pytest.raises(InputError, match="sources holds 7"):
        rp.drift(probe, image, "fox", sources=7, **QUIET)
    with pytest.raises(InputError, match="sources selects nothing"):
        RecordDrift(())
    interventions = [RecordDrift(), Prune(random(16, 0), 5, start=1)]
    with pytest.raises(InputError, match="RecordDrift needs the full reference in step 1"):
        probe.generate(image, "fox", interventions=interventions, **QUIET)
    with pytest.raises(InputError, match="hidden states of the reference in steps"):
        probe.generate(image, "fox", interventions=[RecordDrift(), ReuseReference()], **QUIET)
    drift = rp.drift(probe, image, "fox", **QUIET)
    with pytest.raises(InputError, match=r"recorded from \[0\], not from 2"):
        plot_drift(drift, source=2)
