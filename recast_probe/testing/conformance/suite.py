"""Every property, tried on a case or on many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.testing.conformance import changing, reading
from recast_probe.testing.conformance.case import Case

YES = "yes"

PROPERTIES: Mapping[str, Callable[[Case], None]] = {
    "image bit-identical": reading.check_image_bit_identical,
    "scores are the dense softmax": reading.check_scores_are_dense_softmax,
    "certificate": reading.check_certificate,
    "runs share no state": reading.check_runs_share_no_state,
    "half precision": reading.check_half_precision,
    "several prompts": reading.check_several_prompts,
    "several references": reading.check_several_references,
    "true guidance": reading.check_true_guidance,
    "hooks equal nnsight": changing.check_hooks_equal_nnsight,
    "accelerated equals probed": changing.check_accelerated_equals_probed,
    "pruned equals absent": changing.check_pruned_equals_absent,
    "cut equals minus infinity": changing.check_cut_equals_minus_infinity,
    "merged reference": changing.check_merged_reference,
    "reused keys": changing.check_reused_keys,
    "patched activations": changing.check_patched_activations,
    "step cache": changing.check_step_cache,
    "token cache": changing.check_token_cache,
}
"""What a pipeline is examined for, by name; the first sentence of a function's docstring says what
it proves."""


def proves(name: str) -> str:
    """What a property proves, in a sentence.

    Raises:
        KeyError: there is no such property.

    Examples:
        >>> proves("certificate")
        '``Probe.verify`` passes.'
    """
    return " ".join((PROPERTIES[name].__doc__ or "").split("\n\n")[0].split())


def outcome(case: Case, name: str) -> str:
    """Examine a case for one property.

    Returns:
        "yes", or "refused: " and the model's reason.

    Raises:
        AssertionError: the property does not hold; or the model refuses what ``case.refuses`` does
            not announce, or does what it announces to refuse.

    Examples:
        >>> from recast_probe.testing.conformance import supported_cases
        >>> case = supported_cases()[0]
        >>> outcome(case, "several references")
        'refused: flux-kontext takes one reference image, not 2.'
    """
    announced = case.refuses.get(name)
    try:
        PROPERTIES[name](case)
    except (InputError, UnsupportedPipelineError) as refusal:
        if announced is None or announced not in str(refusal):
            expected = "nothing" if announced is None else f"{announced!r}"
            raise AssertionError(
                f"{case.name} refuses {name!r}, where its case announces {expected}: {refusal}"
            ) from refusal
        return f"refused: {refusal}"
    assert announced is None, f"{case.name} was to refuse {name!r} ({announced}), but has it."
    return YES


def check_pipeline(case: Case) -> dict[str, str]:
    """Examine a case for every property: its outcomes by name.

    Raises:
        InputError: the case announces the refusal of a property that there is not.
        AssertionError: as ``outcome``, at the first property that fails.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> check_pipeline(Case("mine", build_tiny_pipeline, [], refuses={"colour": "none"}))
        Traceback (most recent call last):
            ...
        recast_probe.errors.InputError: There is no property 'colour' to refuse; ...
    """
    if unknown := set(case.refuses) - set(PROPERTIES):
        known = ", ".join(PROPERTIES)
        raise InputError(f"There is no property {min(unknown)!r} to refuse; there is {known}.")
    return {name: outcome(case, name) for name in PROPERTIES}


def conformance_table(cases: Iterable[Case]) -> pd.DataFrame:
    """Outcomes of every case (row) for every property (column), each examined now.

    Raises:
        InputError, AssertionError: as ``check_pipeline``.

    Examples:
        >>> conformance_table([]).columns.to_list() == list(PROPERTIES)
        True
    """
    found = {case.name: check_pipeline(case) for case in cases}
    return pd.DataFrame.from_dict(found, orient="index", columns=list(PROPERTIES))
