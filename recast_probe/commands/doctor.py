"""`recast-probe doctor`: what is installed, and what is missing for what."""

from __future__ import annotations

from recast_probe.commands.common import Json, emit


def doctor(as_json: Json = False) -> None:
    """Say what is installed, which device and attention backend, and what is missing for what."""
    from recast_probe.commands.doctor_checks import examine

    emit(examine(), as_json)
