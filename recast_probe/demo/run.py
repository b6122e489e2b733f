"""The demo from samples to report."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recast_probe import pocket
from recast_probe._utils.provenance import now, versions
from recast_probe.blocks import single_or_all
from recast_probe.demo.agreement import paint_profiles
from recast_probe.demo.arms import cases, perform
from recast_probe.demo.measure import measure, summarise
from recast_probe.errors import InputError
from recast_probe.files.atomic import without_nan, write_json
from recast_probe.files.envelope import digests, sealed
from recast_probe.probe import Probe


@dataclass(frozen=True)
class DemoSettings:
    """How large the demo is."""

    references: int = 4
    prompts: int = 4
    steps: int = 28
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "references": (1, 24),
            "prompts": (1, 4),
            "steps": (2, 1000),
            "seed": (0, 10**12),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise InputError(f"{name} must lie in {least}..{most}, got {value}.")
        if self.references * self.prompts < 2:
            raise InputError("The demo compares runs: ask for at least 2 references or prompts.")


def run_demo(probe: Probe, out: Path, settings: DemoSettings = DemoSettings()) -> dict[str, Any]:
    """Run everything, write it to `out`, and return what `summary.json` holds.

    Runs that are already in `out` with the same settings are read back. After Ctrl-C the runs
    done so far stay there. The summary holds the digest of the report, of every figure and of
    itself.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    chosen = cases(pocket.samples()[: settings.references], settings.prompts, settings.seed)
    runs = perform(probe, chosen, settings.steps, out / "runs")
    # matplotlib takes a second to import; only now it is needed
    from recast_probe.demo import drawing, pages

    painted = paint_profiles(probe, chosen, settings.steps, single_or_all(probe.block_kinds))
    found = measure(probe, chosen, runs, painted)
    drawn = drawing.draw(probe, chosen, runs, found, out / "figures", settings.seed)
    summary: dict[str, Any] = {
        "model": probe.name,
        "fingerprint": probe.fingerprint,
        "versions": versions(),
        "created": now(),
        "seed": settings.seed,
        "settings": asdict(settings),
        **summarise(found, runs, settings.seed),
        "seconds": round(time.monotonic() - started, 2),
    }
    summary = without_nan(summary)
    facts = {key: summary[key] for key in ("model", "fingerprint", "versions", "settings")}
    pages.write_page(out / "report.html", summary, chosen, found, drawn, facts)
    saved = [out / "figures" / f"{name}.{kind}" for name in drawn for kind in ("png", "pdf")]
    summary["files"] = digests([*out.glob("report.html"), *saved], out)
    summary = sealed(summary, "Summary")
    write_json(out / "summary.json", summary)
    return summary
