"""Every example in a docstring runs, and gives what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import recast_probe as rp

# a kernel that needs Triton, and programs
LEFT_OUT = ("recast_probe.attention.triton_sums", "__main__")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(rp.__path__, "recast_probe.")
    if not module.name.endswith(LEFT_OUT)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={"rp": rp})
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    for each in found:
        runner.run(each)
    assert not runner.failures, f"{runner.failures} examples of {name} fail; see the output"
