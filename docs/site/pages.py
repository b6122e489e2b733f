"""The code of a page: what the tests run and the gallery draws."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parents[1]
FENCE = re.compile(
    r"^(?P<reason><!-- not run: .+ -->\n)?```(?P<language>python|bash)\n(?P<code>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
HEADING = re.compile(r"^#+ (.+)$", flags=re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        heading: the last one above it.
        line: of the page, where the code begins.
        run: False below a comment "not run:", which says why.
    """

    language: str
    code: str
    heading: str
    line: int
    run: bool

    @property
    def commands(self) -> list[list[str]]:
        """Words of each call of `recast-probe` in a block of shell."""
        text = self.code.replace("\\\n", " ")
        calls = re.findall(r"^recast-probe (.*)$", text, flags=re.MULTILINE)
        return [shlex.split(call, comments=True) for call in calls]


def blocks(text: str) -> Iterator[Block]:
    """The blocks of Python and shell in a page of Markdown, in their order."""
    for found in FENCE.finditer(text):
        headings = HEADING.findall(FENCE.sub("", text[: found.start()]))
        yield Block(
            language=found["language"],
            code=found["code"],
            heading=headings[-1] if headings else "",
            line=text.count("\n", 0, found.start("code")) + 1,
            run=found["reason"] is None,
        )


def run_python(
    block: Block, page: str, names: dict, instead: Mapping[str, str] | None = None
) -> None:
    """Run a block in these names; a traceback names the page and its line.

    Args:
        instead: by regular expression, what its matches in the code are replaced with.
    """
    code = block.code
    for pattern, other in (instead or {}).items():
        code = re.sub(pattern, other, code, flags=re.MULTILINE)
    exec(compile("\n" * (block.line - 1) + code, page, "exec"), names)
