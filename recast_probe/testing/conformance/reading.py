"""Properties of runs that are read, and not changed."""

from __future__ import annotations

import numpy as np
import torch

from recast_probe.interventions import Keep
from recast_probe.probe import Probe
from recast_probe.testing.conformance.case import Case, Runs, assert_same, distance
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
    runs = Runs(case)
    plain, before = runs.plain(), runs.state()
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
    assert_dense(Runs(case))


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
    runs, other = Runs(case), Runs(case, prompt=case.prompts[1])
    first, before = runs.made(profile=True), runs.state()
    other.made(Keep((0,)))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        call = runs.call | {"callback_on_step_end": interrupt}
        case.probe.generate(**call, interventions=[Keep((0,))], profile=True, progress=False)
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("callback_on_step_end of the pipeline was not called.")
    assert runs.state() == before, "The interrupted run has left something on the pipeline."
    again = runs.made(profile=True)
    assert_same(again, first)
    assert first.result is not None
    assert again.result is not None
    one, two = first.result.profiles[0].dataset, again.result.profiles[0].dataset
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
    assert_same(runs.made(profile=True), runs.plain())
    assert_dense(runs, tolerance=1e-4)


def check_several_prompts(case: Case) -> None:
    """Prompts in one batch have the scores and the images of their own runs.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_several_prompts(supported_cases()[0])
    """
    _assert_prompts_as_alone(case, case.image)


def _assert_prompts_as_alone(case: Case, image: object) -> None:
    together = Runs(case, image=image, prompt=list(case.prompts)).made(profile=True)
    assert together.result is not None
    for n, prompt in enumerate(case.prompts):
        alone = Runs(case, image=image, prompt=prompt).made(profile=True)
        assert alone.result is not None
        # batched kernels round differently
        assert_same_image(together.images[n], alone.images[0], levels=1)
        np.testing.assert_allclose(
            together.result.profiles[n].dataset["score"],
            alone.result.profiles[0].dataset["score"],
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
        >>> check_several_references(supported_cases()[2])
    """
    runs = Runs(case, image=[*case.images, case.image][:2])
    layout = case.probe.layout(runs.image, case.prompt, **case.settings)
    sizes = [grid.size for grid in layout.references]
    assert len(sizes) == 2
    plain = runs.plain()
    assert_same(runs.made(profile=True), plain)
    assert_dense(runs)
    first, second = range(sizes[0]), range(sizes[0], sum(sizes))
    alone = [runs.made(Keep(tuple(tokens))) for tokens in (first, second)]
    assert distance(*alone) > 1e-3, "The image does not depend on which reference stays."
    certificate = case.probe.verify(runs.image, case.prompt, **case.settings)
    assert certificate.passed, str(certificate)
    if "several prompts" not in case.refuses:
        _assert_prompts_as_alone(case, runs.image)


def check_true_guidance(case: Case) -> None:
    """With classifier-free guidance by a second call, both are read, and told apart.

    Raises:
        AssertionError: the property does not hold.
        InputError, UnsupportedPipelineError: the pipeline refuses such a run.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> check_true_guidance(supported_cases()[0])
    """
    runs = Runs(case, more=case.guidance)
    guided = runs.made(profile=True)
    assert_same(guided, runs.plain())
    assert_dense(runs)
    assert guided.result is not None
    scores = guided.result.profiles[0].dataset["score"]
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
