"""Properties of runs that are changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from recast_probe._utils.seeding import seeded
from recast_probe.acceleration.accelerated_pipeline import accelerate
from recast_probe.interventions import (
    Intervention,
    Keep,
    Knockout,
    Merge,
    Patch,
    Prune,
    ReuseReference,
    StepCache,
    TokenCache,
    WithoutReference,
)
from recast_probe.layout import TokenLayout
from recast_probe.selection.rankings import random
from recast_probe.testing.conformance.case import (
    SEED,
    STEPS,
    Case,
    Made,
    assert_close,
    assert_same,
    distance,
)
from recast_probe.testing.conformance.dense import dense_run


def check_hooks_equal_nnsight(case: Case) -> None:
    """PyTorch's hooks make the image and the profile that tracing makes, bit for bit.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_hooks_equal_nnsight(supported_cases()[0])
    """
    runs = case.changed_runs
    plain, before = runs.alone, runs.state()
    for arm in ([], [case.recast]):
        traced = runs.made(*arm, profile=True) if arm else runs.profiled
        hooked = runs.made(*arm, profile=True, attachment="hooks")
        assert_same(hooked, traced)
        assert (distance(traced, plain) == 0) == (not arm)
        _assert_same_profile(hooked, traced)
    assert runs.state() == before, "Something is left on the pipeline."


def _assert_same_profile(found: Made, expected: Made) -> None:
    for name in ("score", "mass", "conditional_entropy"):
        one, other = (each.profiles[0].dataset[name] for each in (found, expected))
        np.testing.assert_array_equal(one.values, other.values)


def check_accelerated_equals_probed(case: Case) -> None:
    """The pipeline accelerated for good makes the images that the probe makes.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_accelerated_equals_probed(supported_cases()[0])
    """
    runs = case.changed_runs
    plain, before = runs.alone, runs.state()
    tokens = case.reference_tokens
    for arm in (case.recast, Prune(random(tokens, 0), tokens // 2, start=1)):
        traced = runs.made(arm)
        assert traced.result is not None
        with accelerate(case.probe.pipe, interventions=[arm]) as accelerated:
            arguments = case.probe.pipeline_arguments(**runs.call)
            with seeded(SEED, case.probe.pipe):
                live = runs.images_of(case.probe.pipe(**arguments))
            assert accelerated.report is not None
            counts = accelerated.report["reference_tokens_per_step"]
        np.testing.assert_array_equal(np.asarray(live[0]), traced.images[0])
        assert counts == list(traced.result.reference_tokens_per_step)
        assert distance(traced, plain) > 1e-3
    assert runs.state() == before, "Something is left on the pipeline."


def check_pruned_equals_absent(case: Case) -> None:
    """Dropped tokens are in no attention: latents are those with minus infinity at their keys.

    Reading such a run changes no bit of it.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_pruned_equals_absent(supported_cases()[0])
    """
    tokens, runs = case.reference_tokens, case.changed_runs
    plain = runs.alone
    assert_same(runs.made(Keep(tuple(range(tokens)))), plain)
    some = range(0, tokens, 3)
    arms: list[tuple[Intervention, Sequence[int]]] = [
        (Keep(tuple(some)), some),
        (WithoutReference(), ()),
    ]
    for drop, kept in arms:
        made = runs.made(drop)
        assert made.result is not None
        assert made.result.reference_tokens_per_step == (len(kept),) * STEPS
        absent = sorted(set(range(tokens)) - set(kept))
        wanted, _ = dense_run(runs, lambda layout, absent=absent: _keys(layout, absent))  # type: ignore[misc]
        assert_close(made, wanted, plain)
        if kept:
            assert_same(runs.made(drop, profile=True), made)


def _keys(layout: TokenLayout, tokens: Sequence[int]) -> list[tuple[slice, slice]]:
    start = layout.span("reference").start
    return [(slice(None), slice(start + token, start + token + 1)) for token in tokens]


def check_cut_equals_minus_infinity(case: Case) -> None:
    """Edges that are cut have the logit minus infinity in a dense softmax.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_cut_equals_minus_infinity(supported_cases()[0])
    """
    tokens, runs = case.reference_tokens, case.changed_runs
    some = range(0, tokens, 2)
    cuts = [Knockout("reference", "generation", tokens=some)]
    family = case.probe.family
    if family.text_in_sequence and "text" in family.query_groups:
        cuts.append(Knockout("generation", "text"))

    def closed(layout: TokenLayout) -> list[tuple[slice, slice]]:
        generation, text = layout.span("generation"), layout.span("text")
        edges = [(generation, keys) for _, keys in _keys(layout, some)]
        return edges + [(text, generation)] * (len(cuts) - 1)

    wanted, _ = dense_run(runs, closed)
    assert_close(runs.made(*cuts), wanted, runs.alone)


def check_merged_reference(case: Case) -> None:
    """Merging down to all tokens changes nothing; below, the step has as many as it is told.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_merged_reference(supported_cases()[0])
    """
    tokens, runs = case.reference_tokens, case.changed_runs
    plain = runs.alone
    assert_same(runs.made(Merge(tokens)), plain)
    merged, unweighted = (
        runs.made(Merge(tokens // 2, start=1, proportional=each)) for each in (True, False)
    )
    assert merged.result is not None
    assert merged.result.reference_tokens_per_step == (tokens, tokens // 2, tokens // 2)
    assert distance(merged, plain) > 1e-4
    assert distance(merged, unweighted) > 1e-5, "The sizes of the groups have no influence."


def check_reused_keys(case: Case) -> None:
    """Keys and values of the same step are exact; those of an earlier step are others.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_reused_keys(supported_cases()[0])
    """
    runs = case.changed_runs
    plain = runs.alone
    assert_same(runs.made(ReuseReference(refresh=1)), plain)
    stale = runs.made(ReuseReference())
    assert (stale.latents[0] == plain.latents[0]).all(), "The storing step is not the full one."
    assert distance(stale, plain) > 1e-4


def check_patched_activations(case: Case) -> None:
    """Activations put back into their own run change nothing; those of another run do.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> cases = {case.name: case for case in supported_cases()}
        >>> check_patched_activations(cases["FluxPipeline + IP-Adapter"])
        Traceback (most recent call last):
            ...
        recast_probe.errors.UnsupportedPipelineError: Record works on the blocks' own ...
    """
    runs, kinds = case.changed_runs, ("keys", "values", "residual", "embeddings")
    plain = runs.alone
    other = replace(runs, image=case.image.rotate(180))
    own, foreign = (
        each.probe.record(**each.call, what=kinds, progress=False) for each in (runs, other)
    )
    assert_same(runs.made(Patch(own)), plain)
    for kind in kinds:
        assert distance(runs.made(Patch(foreign, kind)), plain) > 1e-5, kind


def check_step_cache(case: Case) -> None:
    """A step cache that computes every step is the plain run; a skipped step shows.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_step_cache(supported_cases()[0])
    """
    runs = case.changed_runs
    plain = runs.alone
    assert_same(runs.made(StepCache(STEPS)), plain)
    assert distance(runs.made(StepCache(STEPS - 1)), plain) > 1e-4


def check_token_cache(case: Case) -> None:
    """A token cache that is always full is the plain run; a cached token shows.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_token_cache(supported_cases()[0])
    """
    runs = case.changed_runs
    plain = runs.alone
    assert_same(runs.made(TokenCache(interval=1)), plain)
    assert distance(runs.made(TokenCache(interval=STEPS, first_full=1)), plain) > 1e-5
