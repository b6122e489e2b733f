"""What the benchmarks' command lines have in common."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import recast_probe as rp
from benchmarks.timing import Row, print_rows
from recast_probe import cost_model
from recast_probe._utils.provenance import now, versions
from recast_probe.attention import attention_with_log_sum_exp
from recast_probe.attention.sums import reader
from recast_probe.commands import common
from recast_probe.cost_model import DeviceLimits, TransformerConfig
from recast_probe.cost_model.devices import limits_of
from recast_probe.files.atomic import without_nan, write_json
from recast_probe.files.envelope import sealed, without_seal


def parser(
    text: str | None, *, repeats: int | None = 5, **defaults: Any
) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks take.

    Args:
        repeats: turns unless the user says otherwise; None for what has none.
    """
    found = argparse.ArgumentParser(description=text)
    cuda = torch.cuda.is_available()
    found.add_argument("--device", default="cuda" if cuda else "cpu")
    if repeats is not None:
        found.add_argument("--repeats", type=int, default=repeats, help="turns after the warm-up")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--out", type=_file, help="write the results into this JSON file as well")
    found.add_argument("--json", action="store_true", help="print one JSON object")
    found.set_defaults(**defaults)
    return found


def parse_for_cpu(
    found: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """The options of a benchmark that runs on the CPU whatever the machine has, and says so."""
    found.set_defaults(device="cpu")
    options = found.parse_args(arguments)
    if options.device != "cpu":
        found.error(f"it runs on the CPU alone, not on {options.device}")
    return options


def _file(text: str) -> Path:
    """A path whose folder is there before anything is timed, so that no result is lost to it."""
    path = Path(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def add_model(found: argparse.ArgumentParser) -> None:
    """Options of benchmarks that run a pipeline."""
    found.add_argument("--model", help="folder or repository; Pocket Kontext by default")
    found.add_argument("--dtype", default="auto")
    found.add_argument("--cpu-offload", action="store_true")
    found.add_argument("--steps", type=int, default=28)


def open_probe(arguments: argparse.Namespace) -> rp.Probe:
    """The probe of the model that was named, on the device that was named; no progress bar."""
    if arguments.model:
        offload = getattr(arguments, "cpu_offload", False)
        model, dtype, device = arguments.model, arguments.dtype, arguments.device
        probe = common.open_probe(model, dtype, device, cpu_offload=offload)
    else:
        probe = common.open_probe("pocket")
        # benchmarks time the bundled model wherever they run
        probe.pipe.to(arguments.device)
    probe.pipe.set_progress_bar_config(disable=True)
    return probe


def config_of(probe: rp.Probe) -> TransformerConfig:
    """Sizes of the probe's transformer."""
    return cost_model.config_of(probe.pipe.transformer)


def machine(device: str) -> dict[str, Any]:
    """Date, device and versions."""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    return {
        "created": now(),
        "device": device,
        "device_name": name,
        "cuda": torch.version.cuda,
        "versions": versions(),
    }


def limits(device: str) -> DeviceLimits | None:
    """Data-sheet limits of the device, where the table has it."""
    return limits_of(torch.cuda.get_device_name(device)) if device.startswith("cuda") else None


def kernels(heads: int, dim: int, dtype: torch.dtype, device: str) -> dict[str, str]:
    """The attention kernel that PyTorch chooses for such heads, and who reads its statistics."""
    tensor = torch.zeros(1, 64, heads, dim, dtype=dtype, device=device)
    result = attention_with_log_sum_exp(tensor, tensor, tensor)
    return {"attention": result.backend, "readout": reader(tensor.device, dtype)}


def finish(arguments: argparse.Namespace, facts: Mapping[str, Any], base: str) -> dict[str, Any]:
    """Add the machine, write and print; returns what was written."""
    chosen = {k: v for k, v in vars(arguments).items() if k not in ("out", "json")}
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in chosen.items()}
    found = sealed(
        without_nan(machine(arguments.device) | {"settings": settings} | dict(facts)), "Benchmark"
    )
    if arguments.out:
        write_json(arguments.out, found)
    if arguments.json:
        print(json.dumps(found, allow_nan=False))
        return found
    for name, value in without_seal(found).items():
        if name not in ("arms", "settings", "versions", "layout"):
            print(f"{name}: {value}")
    tables: Mapping[str, Row] = found["arms"]
    print_rows(tables, base)
    return found
