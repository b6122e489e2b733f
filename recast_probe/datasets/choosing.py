"""Taking a part of a benchmark: the first references, the first prompts of each."""

from __future__ import annotations

from collections.abc import Sequence

from recast_probe._utils.checks import check_int
from recast_probe.datasets.case import FileCase, check_cases
from recast_probe.errors import InputError


def chosen(
    cases: Sequence[FileCase], subjects: int | None, prompts: int | None, what: str
) -> list[FileCase]:
    """The cases of the first `subjects` references, at most `prompts` of each; files checked.

    A part of a benchmark is the beginning of any larger part.

    Args:
        subjects, prompts: None for all; where there are fewer, all are taken.
        what: the benchmark's name, for messages.

    Raises:
        InputError: no case at all, numbers below 1, or a file that cannot be used.
    """
    most = check_int("subjects", subjects, 1) if subjects is not None else len(cases)
    each = check_int("prompts", prompts, 1) if prompts is not None else len(cases)
    if not cases:
        raise InputError(f"{what} has no cases.")
    taken: dict[str, list[FileCase]] = {}
    for case in cases:
        if case.subject not in taken and len(taken) == most:
            continue
        of_subject = taken.setdefault(case.subject, [])
        if len(of_subject) < each:
            of_subject.append(case)
    found = [case for of_subject in taken.values() for case in of_subject]
    check_cases(found, what)
    return found
