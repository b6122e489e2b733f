"""What this package stores besides profiles: activations, study records, demo runs, checkpoints and
training packs."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from recast_probe import pocket
from recast_probe.demo import arms as demo
from recast_probe.errors import RecastProbeError
from recast_probe.pocket.checkpoint import load_checkpoint, save_checkpoint
from recast_probe.pocket.subjects import load_pack
from recast_probe.profiles.activations import Activations
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.result import RunResult
from recast_probe.studies import Outcome, Store, Unit, run_study
from tests.fuzz.damage import damaged, edited
from tests.fuzz.harness import FuzzClass


def _activations(folder: Path, base: Path) -> dict[str, Any]:
    path = base / "activations.safetensors"
    return {
        "path": folder / "a.safetensors",
        "data": path.read_bytes(),
        "whole": _facts(Activations.load(path)),
    }


def _facts(found: Activations) -> dict[str, Any]:
    return {
        "values": {str(place): value.numpy().tobytes() for place, value in found.values.items()},
        "shapes": {str(place): tuple(value.shape) for place, value in found.values.items()},
        "positions": found.positions.tolist(),
        "timesteps": found.timesteps.tolist(),
        "layout": found.layout.to_dict(),
        "kinds": list(found.block_kinds),
        "tokens": found.tokens,
        "provenance": found.provenance,
    }


def activations(rng: random.Random, state: dict[str, Any]) -> str:
    """A damaged file of activations, half of the damage in its description."""
    data = state["data"]
    header = 8 + int.from_bytes(data[:8], "little")
    way = rng.random()
    if way < 0.4:
        changed = damaged(data[:header], rng) + data[header:]
    elif way < 0.6:
        described = json.loads(data[8:header])
        inner = json.loads(described["__metadata__"]["recast_probe"])
        described["__metadata__"]["recast_probe"] = json.dumps(edited(inner, rng))
        text = json.dumps(described).encode()
        changed = len(text).to_bytes(8, "little") + text + data[header:]
    else:
        changed = damaged(data, rng)
    state["path"].write_bytes(changed)
    found = _facts(Activations.load(state["path"]))
    wrong = [name for name, value in state["whole"].items() if found[name] != value]
    return f"SILENT: other {wrong[0]}" if wrong else "right"


VALUES = {"identity": 0.812345, "tokens": 17, "note": 'a, "quoted"\n\u2028 text', "none": None}
UNITS = [Unit({"subject": f"s{number}", "prompt": "p"}) for number in range(2)]


def _store(folder: Path, _: Path) -> dict[str, Any]:
    state = {"folder": folder / "store", "whole": folder / "whole"}
    state["table"] = _study(state["whole"]).to_csv()
    state["paths"] = sorted(path.name for path in state["whole"].iterdir())
    return state


def _study(folder: Path) -> Any:
    def perform(unit: Unit, missing: Any) -> Any:
        for arm in missing:
            files = {".txt": lambda path: path.write_text("whole" * 20)}
            yield Outcome(arm, VALUES, files, {"seed": 0})

    store = Store(folder, {"model": "m", "steps": 2})
    return run_study(UNITS, ["a", "b"], perform, store, progress=False)


def study(rng: random.Random, state: dict[str, Any]) -> str:
    """A store of which one file was changed: the same table, or a refusal."""
    shutil.rmtree(state["folder"], ignore_errors=True)
    shutil.copytree(state["whole"], state["folder"])
    path = state["folder"] / rng.choice(state["paths"])
    way = rng.randrange(8)
    data = path.read_bytes()
    if way == 0:
        path.unlink()
    elif way == 1:
        path.unlink()
        rng.choice((os.mkfifo, os.mkdir, lambda place: os.symlink("/etc/passwd", place)))(path)
    elif way == 2 and path.suffix == ".json":
        path.write_text(json.dumps(edited(json.loads(data), rng)))
    elif way == 3:
        other = state["folder"] / rng.choice(state["paths"])
        if not other.is_dir():
            path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(damaged(data, rng))
    table = _study(state["folder"]).to_csv()
    for each in state["folder"].glob("*.txt"):
        if each.read_text() != "whole" * 20:
            return "SILENT: another file of a run"
    return "right" if table == state["table"] else "SILENT: another table"


class _Probe:
    """Gives results that were made before, so that a demo costs nothing."""

    fingerprint = "0" * 64

    def __init__(self, base: Path) -> None:
        from PIL import Image

        self.pixels = np.asarray(pocket.samples()[0].image)
        self.recorded = AttentionProfile.load(base / "profile.nc")
        self.made = {
            arm: Image.fromarray(np.roll(self.pixels, number))
            for number, arm in enumerate(demo.ARMS)
        }
        self.name = "stub"
        self.pipe = SimpleNamespace()

    def identity(self) -> dict[str, Any]:
        return {"fingerprint": self.fingerprint}

    def layout(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(reference_tokens=256)

    def _result(self, arm: str) -> RunResult:
        return RunResult(
            images=(self.made[arm],),
            reference_tokens_per_step=(256, 20 + len(arm)),
            seconds=1.5,
            profiles=(self.recorded,) if arm == "full" else (),
            provenance={"seed": 0},
        )

    def generate(self, *_: Any, interventions: Any = (), **__: Any) -> RunResult:
        name = type(interventions[0]).__name__ if interventions else ""
        return self._result({"": "full", "Prune": "random"}.get(name, "none"))

    def recast(self, *_: Any, **__: Any) -> RunResult:
        return self._result("recast")


def _demo(folder: Path, base: Path) -> dict[str, Any]:
    state: dict[str, Any] = {"folder": folder / "runs", "whole": folder / "whole"}
    state["probe"] = _Probe(base)
    state["cases"] = demo.cases(pocket.samples()[:1], 1, 0)
    state["whole"].mkdir()
    state["runs"] = _runs(state, state["whole"])
    state["paths"] = sorted(path.name for path in state["whole"].iterdir())
    return state


def _runs(state: dict[str, Any], folder: Path) -> Any:
    found = demo.perform(state["probe"], state["cases"], 2, folder)
    return {
        arm: [
            (np.asarray(run.image).tobytes(), tuple(run.reference_tokens_per_step), run.seconds)
            for run in runs
        ]
        for arm, runs in found.items()
    }, found["full"][0].profile


def demo_runs(rng: random.Random, state: dict[str, Any]) -> str:
    """A demo's folder of which one file was changed: the same runs, or a refusal."""
    shutil.rmtree(state["folder"], ignore_errors=True)
    shutil.copytree(state["whole"], state["folder"])
    path = state["folder"] / rng.choice(state["paths"])
    data = path.read_bytes()
    way = rng.randrange(5)
    if way == 0 and path.suffix == ".json":
        path.write_text(json.dumps(edited(json.loads(data), rng)))
    elif way == 1:
        same = [name for name in state["paths"] if Path(name).suffix == path.suffix]
        path.write_bytes((state["whole"] / rng.choice(same)).read_bytes())
    elif way == 2:
        path.unlink()
    else:
        path.write_bytes(damaged(data, rng))
    runs, profile = _runs(state, state["folder"])
    if runs != state["runs"][0]:
        return "SILENT: another run"
    return "right" if profile.identical(state["runs"][1]) else "SILENT: another profile"


def _checkpoint(folder: Path, _: Path) -> dict[str, Any]:
    state: dict[str, Any] = {"folder": folder / "checkpoint", "whole": folder / "whole"}
    state["tensors"] = {"a": torch.arange(200.0).reshape(20, 10), "b": torch.ones(3)}
    state["progress"] = {"samples": 7, "seconds": 1.5, "finished": False}
    save_checkpoint(state["whole"], state["tensors"], state["progress"])
    state["paths"] = sorted(path.name for path in state["whole"].iterdir())
    return state


def checkpoint(rng: random.Random, state: dict[str, Any]) -> str:
    """A checkpoint of which one file was changed: the same state, or a refusal."""
    shutil.rmtree(state["folder"], ignore_errors=True)
    shutil.copytree(state["whole"], state["folder"])
    path = state["folder"] / rng.choice(state["paths"])
    if rng.random() < 0.1:
        path.unlink()
    else:
        path.write_bytes(damaged(path.read_bytes(), rng))
    tensors, progress = load_checkpoint(state["folder"])
    same = progress == state["progress"] and set(tensors) == set(state["tensors"])
    same = same and all(torch.equal(tensors[name], state["tensors"][name]) for name in tensors)
    return "right" if same else "SILENT: another state"


def _pack(folder: Path, _: Path) -> dict[str, Any]:
    random_bytes = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 4), dtype=np.uint8)
    arrays = {
        "rgba": random_bytes,
        "key": np.array([f"1f98{number}" for number in range(6)]),
        "name": np.array(["fox", "owl", "cat", "dog", "bee", "ant"]),
        "style": np.array(["fluent", "noto"] * 3),
    }
    np.savez_compressed(folder / "whole.npz", **arrays)
    data = (folder / "whole.npz").read_bytes()
    return {"path": folder / "pack.npz", "data": data, "arrays": arrays}


def pack(rng: random.Random, state: dict[str, Any]) -> str:
    """A training pack, damaged or with other arrays."""
    path = state["path"]
    if rng.random() < 0.5:
        path.write_bytes(damaged(state["data"], rng))
    else:
        np.savez_compressed(path, allow_pickle=True, **_other_arrays(rng, state["arrays"]))
    try:
        found = load_pack(path)
    except RecastProbeError as error:
        if "allow_pickle" in str(error):
            return "SILENT: suggests to run code"
        raise
    whole = state["arrays"]
    names = ("key", "name", "style")
    same = len(found) == 6 and all(
        np.array_equal(subject.rgba, whole["rgba"][number])
        and all(getattr(subject, name) == whole[name][number] for name in names)
        for number, subject in enumerate(found)
    )
    return "right" if same else "SILENT: other subjects"


def _other_arrays(rng: random.Random, arrays: dict[str, Any]) -> dict[str, Any]:
    changed = dict(arrays)
    name = rng.choice(list(arrays))
    way = rng.randrange(5)
    if way == 0:
        del changed[name]
    elif way == 1:
        changed[name] = arrays[name][:3]
    elif way == 2:
        changed[name] = np.array([object()] * 6, dtype=object)
    elif way == 3:
        changed["extra"] = np.zeros(3)
    else:
        changed[name] = np.zeros((6, 2), np.float64)
    return changed


CLASSES = (
    FuzzClass("activations", activations, _activations, 1200),
    FuzzClass("study records", study, _store, 800),
    FuzzClass("demo runs", demo_runs, _demo, 400),
    FuzzClass("checkpoints", checkpoint, _checkpoint, 200),
    FuzzClass("training packs", pack, _pack, 300),
)
