"""What the package costs outside the transformer: `python -m benchmarks.overheads`.

Each arm is timed in turns with its floor, the least that could do the same: a run under the probe
with the plain pipeline, a command with an empty Python program, opening a probe and its identity
with one look at every weight, a profile's file with the same bytes written or read unchecked.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recast_probe as rp
from benchmarks.command import finish, parse_for_cpu, parser
from benchmarks.timing import alternate
from recast_probe import pocket
from recast_probe._utils.ending import run_program
from recast_probe.profiles.profile import AttentionProfile

Arms = dict[str, Callable[[], object]]


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Time every group of arms against its floor, which stands first in it."""
    found = parser(__doc__)
    found.add_argument("--steps", type=int, default=28)
    options = parse_for_cpu(found, arguments)
    probe = rp.Probe.pocket()
    probe.pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as folder:
        groups = [
            runs(probe, options.steps, options.seed),
            commands(),
            opening(probe),
            *files(probe, options.steps, options.seed, Path(folder)),
        ]
        rows = {}
        for arms in groups:
            base = next(iter(arms))
            rows |= {
                name: row | {"over": base}
                for name, row in alternate(arms, options.repeats, "cpu", base).items()
            }
    return finish(options, {"model": probe.name, "arms": rows}, "the first of its group")


def runs(probe: rp.Probe, steps: int, seed: int) -> Arms:
    """A whole image: the plain pipeline, and the same under the probe."""
    sample = pocket.samples()[0]
    image, prompt = sample.image, sample.prompts[0]
    arguments = probe.pipeline_arguments(image, prompt, steps, seed)

    def plain() -> None:
        probe.pipe(**arguments | {"generator": torch.Generator().manual_seed(seed)})

    def generated(attachment: Any) -> Callable[[], object]:
        return lambda: probe.generate(
            image, prompt, steps=steps, seed=seed, attachment=attachment, progress=False
        )

    def profiled(mass_table: Any) -> Callable[[], object]:
        return lambda: probe.profile(
            image, prompt, steps=steps, seed=seed, mass_table=mass_table, progress=False
        )

    return {
        "plain pipeline": plain,
        "under hooks": generated("hooks"),
        "under nnsight": generated("nnsight"),
        "scores recorded": profiled("scores"),
        "whole mass table recorded": profiled("all"),
    }


def commands() -> Arms:
    """Programs from their start to their end."""

    def program(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
        )

    imports = {
        f"import {name}": program("-c", f"import {name}")
        for name in ("torch", "diffusers", "recast_probe")
    }
    ours = ("-m", "recast_probe")
    return {
        "python -c pass": program("-c", "pass"),
        **{f"recast-probe {each}": program(*ours, each) for each in ("--version", "--help")},
        "recast-probe bound": program(*ours, "bound"),
        **imports,
    }


def opening(probe: rp.Probe) -> Arms:
    """A probe of a pipeline that is in memory, and the pipeline's identity."""
    parts = [each for each in probe.pipe.components.values() if isinstance(each, torch.nn.Module)]

    def look() -> bytes:
        seen = hashlib.sha256()
        for part in parts:
            for weight in part.state_dict().values():
                seen.update(weight.detach().contiguous().view(torch.uint8).numpy())
        return seen.digest()

    return {
        "SHA-256 of all weights": look,
        "Probe(pipe)": lambda: rp.Probe(probe.pipe),
        "Probe(pipe).fingerprint": lambda: rp.Probe(probe.pipe).fingerprint,
    }


def files(probe: rp.Probe, steps: int, seed: int, folder: Path) -> list[Arms]:
    """Writing and reading a profile."""
    sample = pocket.samples()[0]
    profile = probe.profile(sample.image, sample.prompts[0], steps=steps, seed=seed, progress=False)
    data = [np.ascontiguousarray(each.values) for each in profile.dataset.data_vars.values()]
    raw, ours = folder / "raw", folder / "profile.nc"

    def write() -> None:
        with raw.open("wb") as file:
            for each in data:
                file.write(each.tobytes())

    write()
    profile.save(ours)
    return [
        {"bytes written": write, "profile.save": lambda: profile.save(ours)},
        {
            "bytes read": raw.read_bytes,
            "AttentionProfile.load": lambda: AttentionProfile.load(ours),
        },
    ]


if __name__ == "__main__":
    run_program(main, "overheads")
