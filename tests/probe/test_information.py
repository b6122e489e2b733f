"""Mutual information of Pocket's heads against the joint distribution by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.transformers import transformer_flux

import recast_probe as rp
from recast_probe import diagnostics, pocket

STEPS = 2


@pytest.fixture(scope="module")
def measured():
    """A short profile, and the exact information (step, block, head) from a plain run's q and k."""
    probe = rp.Probe.pocket()
    sample = pocket.samples()[0]
    profile = probe.profile(sample.image, sample.prompts[0], STEPS, 1, progress=False)
    text, generation = (profile.layout.span(name) for name in ("text", "generation"))
    exact: list[np.ndarray] = []
    own = transformer_flux.dispatch_attention_fn

    def noted(query, key, value, *rest, **settings):
        q, k = (tensor[0].permute(1, 0, 2).double() for tensor in (query, key))
        probability = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)
        joint = probability[:, generation, generation.stop :].numpy()
        joint = joint / joint.sum((1, 2), keepdims=True)
        apart = joint.sum(1, keepdims=True) * joint.sum(2, keepdims=True)
        exact.append((joint * np.log2(joint / apart)).sum((1, 2)))
        return own(query, key, value, *rest, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer_flux, "dispatch_attention_fn", noted)
        arguments = probe.pipeline_arguments(sample.image, sample.prompts[0], steps=STEPS)
        probe.pipe(**arguments | {"generator": torch.Generator().manual_seed(1)})
    assert text.start == 0
    return profile, np.reshape(exact, (STEPS, len(profile.block_kinds), -1))


def test_every_head_is_exact(measured):
    profile, exact = measured
    found = diagnostics.mutual_information(profile)
    assert found.shape == exact.shape == (STEPS, 8, 4)
    # the kernel's float32 log-sum-exp sets the weights of the queries, hence a few beyond 1e-6
    error = np.abs(found - exact)
    assert np.quantile(error, 0.97) < 1e-6
    assert error.max() < 3e-6
    assert exact.max() > 5


def test_every_diagnostic_shows_it(measured):
    profile, exact = measured
    np.testing.assert_allclose(
        diagnostics.entropy(profile).mutual_information, exact.mean((1, 2)), atol=2e-6
    )
    heads = diagnostics.copy_heads(profile)
    np.testing.assert_allclose(heads.information, exact.mean(0), atol=2e-6)
    np.testing.assert_allclose(
        diagnostics.reading(profile)["information"], exact.mean(0), atol=2e-6
    )
    # queries counted equally would be off by bits
    equal = profile.conditional_entropy
    marginal = found_marginal(profile)
    assert np.abs(marginal - equal - exact).max() > 1


def found_marginal(profile):
    share = profile.score.values.astype(np.float64)
    share /= share.sum(-1, keepdims=True)
    return -(share * np.log2(share)).sum(-1)
