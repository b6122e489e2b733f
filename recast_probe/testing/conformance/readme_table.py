"""The table of README: every family, and what works with it, as the suite's cases say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from recast_probe.errors import InputError
from recast_probe.files.atomic import write_text
from recast_probe.testing.conformance.case import Case
from recast_probe.testing.conformance.suite import YES, check_pipeline

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "trace, verify": (
        "image bit-identical",
        "scores are the dense softmax",
        "certificate",
        "runs share no state",
    ),
    "half precision": ("half precision",),
    "several prompts": ("several prompts",),
    "several references": ("several references",),
    "guidance": ("true guidance",),
    "hooks, accelerate": ("hooks equal nnsight", "accelerated equals probed"),
    "prune": ("pruned equals absent",),
    "cut": ("cut equals minus infinity",),
    "patch": ("patched activations",),
    "merge": ("merged reference",),
    "reuse": ("reused keys",),
    "step cache": ("step cache",),
    "token cache": ("token cache",),
}
"""Columns of the table, each with the properties that it stands for."""

BEGIN, END = "<!-- families: made by `make families` -->", "<!-- families end -->"


def families_table(cases: Iterable[Case]) -> str:
    """A row a family and a column a property: "yes", or the number of the reason why not.

    The reasons are those that the cases announce, as ``Case.reason`` says them. ``check_pipeline``
    proves a case's announcements.

    Returns:
        Markdown: the table, and a list of the reasons if there are any.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> table = families_table([Case("mine", build_tiny_pipeline, [])])
        >>> table.splitlines()[2][:62]
        '| `flux-kontext` | `FluxKontextPipeline` of diffusers: the ref'
    """
    reasons: dict[str, int] = {}
    rows = [("family", "what it is", *COLUMNS), ("---",) * (len(COLUMNS) + 2)]
    for case in cases:
        family = case.probe.family
        cells = []
        for properties in COLUMNS.values():
            refused = dict.fromkeys(
                case.reason(each) for each in properties if each in case.refuses
            )
            numbers = [str(reasons.setdefault(each, len(reasons) + 1)) for each in refused]
            cells.append(f"no ({', '.join(numbers)})" if numbers else YES)
        rows.append((f"`{family.name}`", _first_sentence(type(family)), *cells))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if reasons:
        lines += ["", "Where it says no:", ""]
        lines += [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join(lines)


def write_families_table(file: Path, cases: Iterable[Case], *, examine: bool = True) -> None:
    """Examine every case for every property, and put the table between the file's markers.

    Args:
        examine: or else write what the cases announce, which takes seconds and proves nothing.

    Raises:
        InputError: a file that cannot be read, or that lacks one of the markers.
        AssertionError: a property does not hold, or a case announces wrongly.
    """
    text, every = _read(file), list(cases)
    before, after = _around(text, file)
    for case in every if examine else ():
        check_pipeline(case)
    write_text(file, f"{before}{BEGIN}\n\n{families_table(every)}\n\n{END}{after}")


def written_table(file: Path) -> str:
    """What stands between the markers of a file.

    Raises:
        InputError: a file that cannot be read, or that lacks one of the markers.
    """
    text = _read(file)
    before, after = _around(text, file)
    return text[len(before) + len(BEGIN) : len(text) - len(after) - len(END)].strip("\n")


def _read(file: Path) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}).") from error


def _around(text: str, file: Path) -> tuple[str, str]:
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(
            f"{file} has no line {END if begin else BEGIN!r}; the table stands between {BEGIN!r} "
            f"and {END!r}."
        )
    return before, after


def _first_sentence(kind: type) -> str:
    paragraph = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".").replace("``", "`").replace("|", "\\|")
