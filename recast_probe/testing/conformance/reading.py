"""Properties of runs that are read, and not changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from recast_probe.interventions import Keep
from recast_probe.probe import Probe
from recast_probe.testing.conformance.case import (
    Case,
    Runs,
    assert_same,
    distance,
    steps_of,
)
from recast_probe.testing.conformance.dense import assert_dense, dense_run
from recast_probe.testing.images import assert_same_image


def check_image_bit_identical(case: Case) -> None:
    """A profiled run makes the pipeline's own latents in every step, and its image, bit for bit.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_image_bit_identical(supported_cases()[0])
    """
    runs = case.runs
    plain, before = runs.alone, runs.state()
    assert_same(runs.made(profile=True), plain)
    assert runs.state() == before, "Something is left on the pipeline."
    others = (Runs(case, image=case.image.rotate(180)), Runs(case, prompt=case.prompts[1]))
    for other in others:
        assert distance(other.plain(), plain) > 1e-3, "The reference and the prompt must show."


def check_scores_are_dense_softmax(case: Case) -> None:
    """Scores, masses and entropies are those of a dense softmax in float64, in every step, block
    and head.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_scores_are_dense_softmax(supported_cases()[0])
    """
    profile = case.probe.profile(**case.runs.call, progress=False)
    assert_dense(case.runs, [profile])


def check_certificate(case: Case) -> None:
    """``Probe.verify`` passes.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_certificate(supported_cases()[0])
    """
    certificate = case.probe.verify(case.image, case.prompt, **case.settings)
    assert certificate.passed, str(certificate)


def check_runs_share_no_state(case: Case) -> None:
    """A run is the same after others, and after one that was interrupted.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_runs_share_no_state(supported_cases()[0])
    """
    runs, other = case.runs, Runs(case, prompt=case.prompts[1])
    first, before = runs.profiled, runs.state()
    other.made(Keep((0,)))
    try:
        with steps_of(case.probe.pipe, stop=True):
            runs.made(Keep((0,)), profile=True)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("The pipeline's scheduler took no step.")
    assert runs.state() == before, "The interrupted run has left something on the pipeline."
    again = runs.made(profile=True)
    assert_same(again, first)
    one, two = first.profiles[0].dataset, again.profiles[0].dataset
    np.testing.assert_array_equal(one["score"], two["score"])


def check_half_precision(case: Case) -> None:
    """In bfloat16 the image is the pipeline's own, and scores are those of its dense softmax.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_half_precision(supported_cases()[0])
    """
    probe = Probe(case.build().to(torch.bfloat16), name=case.name)
    probe.pipe.set_progress_bar_config(disable=True)
    runs = Runs(case, probe_of=probe)
    assert_same(runs.profiled, assert_dense(runs, runs.profiled.profiles, tolerance=1e-4))


def check_several_prompts(case: Case) -> None:
    """Prompts in one batch have the scores and the images of their own runs.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_several_prompts(supported_cases()[0])
    """
    _assert_prompts_as_alone(case.runs)


def _assert_prompts_as_alone(runs: Runs) -> None:
    prompts = runs.case.prompts
    together = replace(runs, prompt=list(prompts)).made(profile=True)
    for n, each in enumerate((runs, replace(runs, prompt=prompts[1]))):
        alone = each.profiled
        # batched kernels round differently
        assert_same_image(together.images[n], alone.images[0], levels=1)
        np.testing.assert_allclose(
            together.profiles[n].dataset["score"],
            alone.profiles[0].dataset["score"],
            rtol=1e-4,
            atol=1e-7,
        )


def check_several_references(case: Case) -> None:
    """Each of two reference images has separate tokens, whose scores are the dense softmax.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_several_references(supported_cases()[0])
        Traceback (most recent call last):
            ...
        recast_probe.errors.InputError: flux-kontext takes one reference image, not 2.
    """
    runs = Runs(case, image=[*case.images, case.image][:2])
    layout = case.probe.layout(runs.image, case.prompt, **case.settings)
    sizes = [grid.size for grid in layout.references]
    assert len(sizes) == 2
    assert_same(runs.profiled, assert_dense(runs, runs.profiled.profiles))
    first, second = range(sizes[0]), range(sizes[0], sum(sizes))
    alone = [runs.made(Keep(tuple(tokens))) for tokens in (first, second)]
    assert distance(*alone) > 1e-3, "The image does not depend on which reference stays."
    certificate = case.probe.verify(runs.image, case.prompt, **case.settings)
    assert certificate.passed, str(certificate)
    if "several prompts" not in case.refuses:
        _assert_prompts_as_alone(runs)


def check_true_guidance(case: Case) -> None:
    """With classifier-free guidance by a second call, both are read, and told apart.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> cases = {case.name: case for case in supported_cases()}
        >>> check_true_guidance(cases["Flux2Pipeline"])
        Traceback (most recent call last):
            ...
        recast_probe.errors.InputError: ... takes no argument 'true_cfg_scale'...
    """
    runs = case.guided_runs
    guided = runs.profiled
    assert_same(guided, runs.alone)
    assert_dense(runs, guided.profiles)
    scores = guided.profiles[0].dataset["score"]
    assert list(scores["branch"].values) == ["conditional", "unconditional"]
    _, dense = dense_run(Runs(case, more={**case.guidance, **unguided(case)}))
    for block in scores["block"].values:
        alone = dense.score["conditional", 0, int(block)][0]
        both = scores.sel(step=0, block=block)
        np.testing.assert_allclose(both.sel(branch="conditional"), alone, rtol=2e-5)
    assert not np.allclose(scores[0], scores[1], rtol=1e-3), "The branches cannot be told apart."
    certificate = case.probe.verify(case.image, case.prompt, **runs.settings)
    assert certificate.passed, str(certificate)


def unguided(case: Case) -> dict[str, object]:
    """Settings that switch the guidance of a case off: its scale is 1."""
    return {name: 1.0 for name in case.guidance if name.endswith("_scale")}
