"""Images, scores and masses of fixed runs, to compare two states of the code bit by bit.

    python -m tests.fixed_runs record before.npz
    python -m tests.fixed_runs compare before.npz

Every family, every intervention and both attachments take part; the same machine and packages give
the same bits. A run whose bits differ is named, and the command ends with 1.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import recast_probe as rp
from recast_probe import pocket
from recast_probe.interventions import Record, TokenCache
from recast_probe.testing import tiny, tiny_flux2, tiny_ip_adapter, tiny_qwen

STEPS = 4
# by name: interventions for a run with so many reference tokens, given activations to patch in
ARMS: dict[str, Callable[[int, Callable[[], Any]], list[Any]]] = {
    "full": lambda tokens, recorded: [],
    "recast": lambda tokens, recorded: [rp.Recast(tokens // 3 + 1)],
    "prune": lambda tokens, recorded: [rp.Prune(rp.rank.random(tokens, 0), tokens // 3, start=1)],
    "keep": lambda tokens, recorded: [rp.Keep(range(1, tokens, 3))],
    "merge": lambda tokens, recorded: [rp.Merge(tokens // 2, start=1)],
    "reuse": lambda tokens, recorded: [rp.ReuseReference(refresh=2)],
    "step-cache": lambda tokens, recorded: [rp.StepCache(2)],
    "token-cache": lambda tokens, recorded: [TokenCache(interval=2, first_full=1)],
    "knockout": lambda tokens, recorded: [rp.Knockout("generation", "reference", blocks=[1])],
    "patch": lambda tokens, recorded: [rp.Patch(recorded())],
    "none": lambda tokens, recorded: [rp.WithoutReference()],
}
FAMILIES = {
    "kontext": list(ARMS),
    "flux2": list(ARMS),
    "klein": ["full", "recast", "reuse"],
    "qwen": ["full", "recast", "merge", "knockout", "reuse"],
    "qwen-plus": ["full", "recast"],
    "ip-adapter": ["full", "recast"],
    "pocket": ["full", "recast", "merge", "reuse", "knockout"],
}
# the settings that guided pipelines, and those of other sizes, are run with
SETTINGS: dict[str, dict[str, Any]] = {
    "klein": {"guidance_scale": 4.0},
    "qwen": {"negative_prompt": "blurry", "true_cfg_scale": 3.0, **tiny_qwen.SIZE},
    "qwen-plus": dict(tiny_qwen.SIZE),
}


def _recorded(probe: rp.Probe) -> Any:
    run = probe.generate(
        tiny.tiny_image(seed=3),
        "a red fox",
        steps=STEPS,
        seed=1,
        interventions=[Record("residual", blocks=[1], steps=[1, 2])],
        progress=False,
    )
    return run.activations


def _probes(folder: Path) -> Iterator[tuple[str, rp.Probe, Any]]:
    image = tiny.tiny_image()
    yield "kontext", rp.Probe(tiny.build_tiny_pipeline()), image
    yield "flux2", rp.Probe(tiny_flux2.build_flux2()), image
    yield "klein", rp.Probe(tiny_flux2.build_klein()), image
    yield "qwen", rp.Probe(tiny_qwen.build_tiny_pipeline()), image
    yield "qwen-plus", rp.Probe(tiny_qwen.build_tiny_pipeline(plus=True)), [image, image]
    yield "ip-adapter", rp.Probe(tiny_ip_adapter.load(tiny_ip_adapter.save_all(folder))), image
    yield "pocket", rp.Probe.pocket(), pocket.samples()[2].image


def fixed_runs() -> dict[str, np.ndarray]:
    """By "family arm attachment what": pixels, and scores and masses where a profile is made."""
    torch.set_num_threads(1)
    found: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, probe, image in _probes(Path(folder)):
            probe.pipe.set_progress_bar_config(disable=True)
            for arm in FAMILIES[name]:
                for attachment in ("nnsight", "hooks"):
                    if name == "ip-adapter" and attachment == "hooks":
                        continue  # its attention can be traced only
                    found |= _one(probe, image, name, arm, attachment)
    return found


def _one(
    probe: rp.Probe, image: Any, name: str, arm: str, attachment: Any
) -> dict[str, np.ndarray]:
    settings = SETTINGS.get(name, {})
    tokens = probe.layout(image, **settings).reference_tokens
    run = probe.generate(
        image,
        "a red fox on the beach",
        steps=STEPS,
        seed=5,
        interventions=ARMS[arm](tokens, lambda: _recorded(probe)),
        profile=arm in ("full", "knockout"),
        attachment=attachment,
        progress=False,
        **settings,
    )
    what = f"{name} {arm} {attachment}"
    found = {f"{what} image": np.asarray(run.image)}
    if run.profile is not None:
        held = run.profile.dataset.data_vars  # runs that only rank have no entropies
        for variable in sorted({"score", "mass", "conditional_entropy"} & set(held)):
            found[f"{what} {variable}"] = run.profile.dataset[variable].values
    return found


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")


def main(arguments: list[str]) -> int:
    """Record or compare; 1 where a run differs or is missing."""
    if len(arguments) != 2 or arguments[0] not in ("record", "compare"):
        print(__doc__)
        return 2
    found, file = fixed_runs(), Path(arguments[1])
    if arguments[0] == "record":
        np.savez_compressed(file, **found)
        print(f"{len(found)} arrays in {file}")
        return 0
    with np.load(file) as before:
        names = sorted(set(before) | set(found))
        differing = [
            name
            for name in names
            if name not in found or name not in before or not _equal(before[name], found[name])
        ]
    print(f"{len(names) - len(differing)} of {len(names)} arrays are equal to the last bit")
    print(*differing, sep="\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
