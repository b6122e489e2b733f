"""What ``pytest -m "not slow"`` leaves out, so that it is a loop of about a minute on two cores.

Whole runs of pipelines, training, programs started from outside; what is left are the formulas,
files and checks, and whole runs of one pipeline with the commonest interventions.
"""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
SLOW = (
    "acceleration",
    "analyses",
    "benchmarks",
    "cli",
    "datasets/test_benchmarks.py",
    "demo",
    "docs/test_pages.py",
    "extensions/test_own_arm.py",
    "extensions/test_own_family.py",
    "experiments/test_in_runs.py",
    "explorer/test_browser.py",
    "explorer/test_live.py",
    "explorer/test_page.py",
    "pipelines",
    "gpu",
    "metrics",
    "inputs/test_pictures.py",
    "interventions",
    "masks",
    "notebooks",
    "pocket",
    "probe",
    "profiles/test_profile_store.py",
    "report",
    "studies/test_attribution.py",
    "studies/test_causal_map.py",
    "studies/test_dose_response.py",
    "studies/test_gate.py",
    "studies/test_ray.py",
    "studies/test_reference_gain.py",
    "studies/test_sharing.py",
    "test_ending.py",
    "test_flipped_bits.py",
    "test_fuzz_slice.py",
    "test_memory.py",
    "test_packaging.py",
    "test_readme.py",
    "test_run_identity.py",
)
# of what is slow, these are quick enough
QUICK = (
    "interventions/test_keep.py",
    "interventions/test_methods.py",
    "interventions/test_prune.py",
    "probe/test_information.py",
    "probe/test_profile.py",
)
if gone := [name for name in (*SLOW, *QUICK) if not (TESTS / name).exists()]:
    raise FileNotFoundError(f"tests/slow.py names what is not there: {', '.join(gone)}.")


def is_slow(file: Path) -> bool:
    """Whether all tests of a file are slow."""
    name = file.relative_to(TESTS).as_posix()
    if name in QUICK:
        return False
    return any(name == each or name.startswith(f"{each}/") for each in SLOW)
