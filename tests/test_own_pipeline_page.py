"""The page "Your own pipeline": its code does what it says, and its family has the properties."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recast_probe import pipelines
from recast_probe.errors import UnsupportedPipelineError
from recast_probe.probe import Probe
from recast_probe.testing import conformance

PAGE = (Path(__file__).parents[1] / "docs" / "own-pipeline.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
FILES = {block.split()[1]: block for block in BLOCKS if block.startswith("# my_")}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The names that the page's code leaves, in a folder of its own."""
    folder = tmp_path_factory.mktemp("own")
    names: dict[str, Any] = {}
    for name, text in FILES.items():
        (folder / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setattr(pipelines, "FAMILIES", list(pipelines.FAMILIES))
        for block in BLOCKS:
            if block not in FILES.values():
                exec(block, names)
        yield names
        for name in FILES:
            sys.modules.pop(name.removesuffix(".py"), None)


def test_the_page_runs(page: dict[str, Any]) -> None:
    assert list(FILES) == ["my_pipeline.py", "my_family.py"]
    assert page["profile"].score.sizes["token"] == 16
    assert set(page["pruned"].reference_tokens_per_step) == {4}


def test_family_is_short() -> None:
    lines = FILES["my_family.py"].splitlines()
    assert len([line for line in lines if line.strip() and not line.startswith("#")]) < 30


@pytest.mark.parametrize("name", conformance.PROPERTIES)
def test_every_property_holds_or_is_refused(page: dict[str, Any], name: str) -> None:
    found = conformance.outcome(page["case"], name)
    assert (found == "yes") == (name not in page["case"].refuses)


def test_replaced_function_of_own_code_is_refused(page: dict[str, Any]) -> None:
    pipe = page["build"]()
    block = type(pipe.transformer.blocks[0])
    own = block.forward
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(block, "forward", lambda self, **states: own(self, **states))
        with pytest.raises(UnsupportedPipelineError, match=r"Block\.forward .* was replaced"):
            Probe(pipe).profile(page["fox"], "a", 2, progress=False)
    attention = type(pipe.transformer.blocks[0].attn.processor)
    whole = attention.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "__call__", lambda self, *given: whole(self, *given))
        with pytest.raises(UnsupportedPipelineError, match="processor"):
            Probe(pipe).generate(
                page["fox"], "a", 2, profile=True, attachment="hooks", progress=False
            )
