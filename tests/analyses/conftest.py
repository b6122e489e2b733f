"""One small Table 1 for all tests that read its runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyses import table_1

SMALL = ["--quick", "--subjects", "2", "--prompts", "1", "--steps", "2"]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Its folder, and what it returned."""
    out = tmp_path_factory.mktemp("table_1")
    return out, table_1.main([*SMALL, "--out", str(out)])
