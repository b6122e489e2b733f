"""A mark for tests in which a warning is a fault of what they run.

What an earlier test left open warns whenever Python collects it, in whichever test that is; such
warnings say nothing of the test they come in.
"""

from __future__ import annotations

import pytest

no_warnings = pytest.mark.filterwarnings(
    "error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
