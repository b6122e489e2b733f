"""Every example in a docstring runs, and gives what it says."""

from __future__ import annotations

import doctest
import functools
import importlib
import pkgutil

import pytest

import recast_probe as rp
from recast_probe.testing import conformance

# a kernel that needs Triton, and programs
LEFT_OUT = ("recast_probe.attention.triton_sums", "__main__")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(rp.__path__, "recast_probe.")
    if not module.name.endswith(LEFT_OUT)
]


@pytest.fixture(scope="module", autouse=True)
def cases_once():
    """The examples of the conformance suite share their pipelines, and the runs of these alone."""
    with pytest.MonkeyPatch.context() as patched:
        once = functools.cache(conformance.supported_cases)
        patched.setattr(conformance, "supported_cases", once)
        yield


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"rp": rp})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for each in found:
        runner.run(each)
    assert not runner.failures, f"{runner.failures} examples of {name} fail; see the output"
