"""Docstrings of this package for Sphinx: Google's style, with prose where Napoleon expects types.

"Returns: By arm: mean, low, high" is a sentence here, and "low, high: ends" are two attributes with
one description.
"""

from __future__ import annotations

import inspect
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring

STYLE = Config(napoleon_use_param=False, napoleon_use_rtype=False)


class Docstring(GoogleDocstring):
    """Google's style without types before colons."""

    def _consume_returns_section(self, preprocess_types: bool = False) -> list:
        return [("", "", self._dedent(self._consume_to_next_section()))]

    def _consume_inline_attribute(self) -> tuple:
        line = self._lines.next()
        return "", [line, *self._dedent(self._consume_contiguous())]

    def _parse_attributes_section(self, section: str) -> list[str]:
        return self._format_fields("Attributes", self._consume_fields())


def read(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Put a docstring into reStructuredText."""
    lines[:] = Docstring(lines, STYLE, app, what, name, value, options).lines()


def leave_out(
    app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any
) -> bool | None:
    """Functions of other packages that a class holds as a value are not described."""
    # what is built in may have no module
    module = str(getattr(value, "__module__", None))
    foreign = inspect.isroutine(value) and not module.startswith("recast_probe")
    return True if foreign else None


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", read)
    app.connect("autodoc-skip-member", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
