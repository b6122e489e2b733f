"""What a study consists of, and the missing runs of one unit, whichever engine makes them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recast_probe.errors import InputError
from recast_probe.studies.store import Store, Writer


@dataclass(frozen=True)
class Unit:
    """What all arms are run on, in pairs.

    Attributes:
        labels: columns of the table, such as subject, prompt and category; they name the unit.
        payload: whatever `perform` needs.
        content: what labels do not tell of the payload, such as the digest of its pictures. It is
            no column; runs on another content are other runs.

    Examples:
        >>> unit = Unit({"subject": "fox", "prompt": "in snow"})
        >>> unit.labels["subject"]
        'fox'
    """

    labels: Mapping[str, str]
    payload: Any = None
    content: str = ""


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        arm: its arm.
        values: columns of the table.
        files: by suffix, a function that writes to a path.
        provenance: how it was made.

    Examples:
        >>> Outcome("recast", {"dinov2": 0.8}).values
        {'dinov2': 0.8}
    """

    arm: str
    values: Mapping[str, Any]
    files: Mapping[str, Writer] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


Perform = Callable[[Unit, Sequence[str]], Iterable[Outcome]]
ArmSettings = Mapping[str, Mapping[str, Any]]
Values = dict[str, Any]
Tell = Callable[[int, str, Values], None]
"""Told of each run that has its record: number of the unit, arm, values."""


class HeldElsewhereError(Exception):
    """Another process is at this unit."""


def record_key(unit: Unit, arm: str | None = None) -> dict[str, str]:
    """The key of a run in its store: the unit's labels and content, and the arm; or the unit alone.

    Examples:
        >>> record_key(Unit({"subject": "fox"}, content="3f9a"), "full")
        {'subject': 'fox', 'content': '3f9a', 'arm': 'full'}
    """
    key = {name: str(label) for name, label in unit.labels.items()}
    if unit.content:
        key["content"] = unit.content
    return key if arm is None else {**key, "arm": arm}


def settings_of(perform: Perform, arms: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """By arm, what decides its runs beyond the study's settings; none where `perform` has no
    `arm_settings` that tells."""
    tell = getattr(perform, "arm_settings", None)
    return {} if tell is None else dict(tell(arms))


def stored_values(
    unit: Unit, arms: Iterable[str], store: Store, settings: ArmSettings
) -> dict[str, Values | None]:
    """What the store holds of a unit, by arm; None where a run is missing.

    Raises:
        InputError: a run was made with other settings.
    """
    records = {arm: store.load(record_key(unit, arm), settings.get(arm)) for arm in arms}
    return {arm: None if each is None else each.values for arm, each in records.items()}


def run_missing(
    unit: Unit, arms: Sequence[str], perform: Perform, store: Store, settings: ArmSettings
) -> Generator[tuple[str, Values], None, None]:
    """Run those of the arms that nobody has run, and store each outcome as it comes.

    Args:
        settings: as `settings_of` gives them.

    Yields:
        Each arm with its values, also those that another process has just made.

    Raises:
        HeldElsewhereError: another process is at this unit; nothing was done.
        InputError: an outcome that was not asked for, or a run that was made with other settings.
    """
    with store.claim(record_key(unit)) as ours:
        if not ours:
            raise HeldElsewhereError
        missing = []
        for arm, values in stored_values(unit, arms, store, settings).items():
            if values is None:
                missing.append(arm)
            else:
                yield arm, values
        for outcome in perform(unit, missing) if missing else ():
            if outcome.arm not in missing:
                raise InputError(f"The arm {outcome.arm!r} was not asked for.")
            record = store.save(
                record_key(unit, outcome.arm),
                outcome.values,
                outcome.files,
                outcome.provenance,
                settings.get(outcome.arm),
            )
            yield outcome.arm, record.values


def unit_name(unit: Unit) -> str:
    """A unit in words.

    Examples:
        >>> unit_name(Unit({"subject": "fox", "prompt": "in snow"}))
        'subject=fox, prompt=in snow'
    """
    return ", ".join(f"{name}={label}" for name, label in unit.labels.items())
