"""`recast-probe doctor`: what is installed, and what is missing for what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any

from recast_probe.commands.output import emit


def doctor() -> None:
    """What is installed, which device and attention backend, what is missing for what."""
    from recast_probe.commands.doctor_checks import examine

    found = examine()
    emit(found, _lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"recast_probe {found['recast_probe']}, Python {found['python']}, on {found['device']} "
        f"with {found['threads']} threads and {found['memory_gib']} GiB of memory."
    )
    yield f"Attention is read by {found['attention_backend']}."
    yield f"Bundled model: {found['bundled_model'] or 'not there'}."
    yield from _listed("Samples, for --image and --mask", found["samples"])
    yield from _listed("Models without a download, for --model", found["tiny_models"])
    ready = [name for name, state in found["metrics"].items() if state == "ready"]
    yield from _listed("Metrics that are ready", ready)
    yield from _block(
        "Metrics that need something",
        {name: state for name, state in found["metrics"].items() if state != "ready"},
    )
    versions = found["versions"]
    yield from _listed("Versions", [f"{name} {each}" for name, each in versions.items() if each])
    yield from _block("Missing", found["missing"])
    if found["problems"]:
        yield "Problems:"
        yield from (f"  {each}" for each in found["problems"])
    else:
        yield "No problems were found."


def _listed(title: str, values: list[str]) -> Iterator[str]:
    if values:
        yield f"{title}:"
        yield from wrap(
            ", ".join(values),
            96,
            initial_indent="  ",
            subsequent_indent="  ",
            break_on_hyphens=False,
        )


def _block(title: str, values: Mapping[str, str]) -> Iterator[str]:
    if values:
        yield f"{title}:"
        yield from (f"  {name}: {value}" for name, value in values.items())
