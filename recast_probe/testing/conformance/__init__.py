"""What a pipeline must keep to be probed: one function a property, for our families and yours.

from recast_probe.testing import conformance

case = conformance.Case("mine", build=my_tiny_pipeline, images=[first, second])
conformance.check_pipeline(case)
"""

from __future__ import annotations

from recast_probe.testing.conformance.case import Case
from recast_probe.testing.conformance.changing import (
    check_accelerated_equals_probed,
    check_cut_equals_minus_infinity,
    check_hooks_equal_nnsight,
    check_merged_reference,
    check_patched_activations,
    check_pruned_equals_absent,
    check_reused_keys,
    check_step_cache,
    check_token_cache,
)
from recast_probe.testing.conformance.reading import (
    check_certificate,
    check_half_precision,
    check_image_bit_identical,
    check_runs_share_no_state,
    check_scores_are_dense_softmax,
    check_several_prompts,
    check_several_references,
    check_true_guidance,
)
from recast_probe.testing.conformance.readme_table import (
    families_table,
    write_families_table,
    written_table,
)
from recast_probe.testing.conformance.suite import (
    PROPERTIES,
    check_pipeline,
    conformance_table,
    outcome,
    proves,
)
from recast_probe.testing.conformance.supported import supported_cases

__all__ = [
    "PROPERTIES",
    "Case",
    "check_accelerated_equals_probed",
    "check_certificate",
    "check_cut_equals_minus_infinity",
    "check_half_precision",
    "check_hooks_equal_nnsight",
    "check_image_bit_identical",
    "check_merged_reference",
    "check_patched_activations",
    "check_pipeline",
    "check_pruned_equals_absent",
    "check_reused_keys",
    "check_runs_share_no_state",
    "check_scores_are_dense_softmax",
    "check_several_prompts",
    "check_several_references",
    "check_step_cache",
    "check_token_cache",
    "check_true_guidance",
    "conformance_table",
    "families_table",
    "outcome",
    "proves",
    "supported_cases",
    "write_families_table",
    "written_table",
]
