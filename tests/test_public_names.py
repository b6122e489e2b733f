"""The package's face: every public name loads, and importing it is light."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import recast_probe


@pytest.mark.parametrize("name", recast_probe.__all__)
def test_public_names_load(name):
    assert getattr(recast_probe, name) is not None


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = recast_probe.nothing_like_it


def test_import_is_light():
    code = "import sys, recast_probe; print({'torch', 'diffusers', 'xarray'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


HOLDS = {
    "diagnostics": "skew",
    "experiments": "causal_map",
    "figures": "plot_skew",
    "interventions": "Prune",
    "metrics": "metric",
    "pipelines": "register_family",
    "studies": "compare",
    "testing": "assert_same_image",
}
ASKED = """
import os
# what takes seconds to import, and is not ours
import diffusers, matplotlib.pyplot, nnsight, pandas, scipy.stats, torch, transformers, xarray
import recast_probe as rp

for name, holds in HOLDS.items():
    if not os.fork():
        try:
            room = getattr(rp, name)
            print(name, holds in dir(room), callable(getattr(room, holds)), flush=True)
        finally:
            os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="asks in forked processes")
def test_namespaces_complete_their_names():
    """As an editor or a notebook asks, without anything of the package imported before."""
    code = ASKED.replace("HOLDS", repr(HOLDS))
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [f"{name} True True" for name in HOLDS], run.stderr
