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


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("diagnostics", "skew"),
        ("experiments", "causal_map"),
        ("figures", "plot_skew"),
        ("interventions", "Prune"),
        ("metrics", "metric"),
        ("pipelines", "register_family"),
        ("studies", "compare"),
        ("testing", "assert_same_image"),
    ],
)
def test_namespaces_complete_their_names(name, holds):
    """In a fresh process, as an editor or a notebook asks, without anything imported before."""
    room = f"rp.{name}"
    code = f"import recast_probe as rp; print({holds!r} in dir({room}), callable({room}.{holds}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True"]
