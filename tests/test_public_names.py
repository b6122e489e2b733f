"""The package's face: every public name loads, and importing it is light."""

from __future__ import annotations

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
