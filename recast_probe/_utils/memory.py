"""Peak memory: of the device on CUDA, of the process elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# by which pipelines read their prompts, some of them pictures as well
ENCODERS = ("encode_prompt", "encode_prompt_multiple_images")


@dataclass
class Peak:
    """Bytes; 0 until the block has ended, None where the system does not tell.

    Attributes:
        total: the most that was held at once, what was there before included.
        extra: the most above what was held when the block began.
        kind: "device" (allocated by PyTorch) or "resident" (of the whole process).
    """

    total: int | None = 0
    extra: int | None = 0
    kind: str = "resident"


@contextmanager
def peak_memory(device: str | torch.device) -> Iterator[Peak]:
    """Measure a block; peaks of blocks inside each other would be mixed up."""
    meter = _Meter(torch.device(device))
    found = Peak(kind=meter.kind)
    before = meter.now()
    meter.forget()
    yield found
    found.total = meter.peak()
    known = found.total is not None and before is not None
    found.extra = max(0, found.total - before) if known else None  # type: ignore[operator]


@contextmanager
def memory_by_stage(
    pipeline: Any, device: str | torch.device, tell: Callable[[str, int, str], None]
) -> Iterator[None]:
    """Tell the peak memory of every stage of the pipeline calls inside the block.

    The stages of one call: "text encoding", "reference encoding" (with the initial noise),
    "denoising", "decoding". The pipeline is as it was afterwards.

    Args:
        device: where the transformer computes.
        tell: called at the end of a stage with its name, bytes, and the kind of memory as in
            `Peak`; not called where the system does not tell.
    """
    meter = _Meter(torch.device(device))

    last = ""

    def end(stage: str) -> None:
        nonlocal last
        last = stage
        peak = meter.peak()
        meter.forget()
        if peak is not None:
            tell(stage, peak, meter.kind)

    def around(owner: Any, name: str, before: str | None, after: str) -> Callable[[], None]:
        own = getattr(owner, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            if before is not None:
                end(before)
            result = own(*arguments, **options)
            end(after)
            return result

        had = name in vars(owner)
        setattr(owner, name, wrapped)
        return lambda: setattr(owner, name, own) if had else delattr(owner, name)

    meter.forget()
    undo = [
        *(
            around(pipeline, name, None, "text encoding")
            for name in ENCODERS
            if hasattr(pipeline, name)
        ),
        around(pipeline, "prepare_latents", None, "reference encoding"),
        around(pipeline.vae, "decode", "denoising", "decoding"),
    ]
    try:
        yield
    finally:
        for each in undo:
            each()
        if last == "reference encoding":  # a run that was stopped before it was decoded
            end("denoising")


class _Meter:
    """The peak since the last `forget`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.kind = "device" if device.type == "cuda" else "resident"

    def now(self) -> int | None:
        if self.kind == "device":
            return torch.cuda.memory_allocated(self.device)
        return _of_process("VmRSS")

    def peak(self) -> int | None:
        if self.kind == "device":
            torch.cuda.synchronize(self.device)
            return torch.cuda.max_memory_allocated(self.device)
        return _of_process("VmHWM")

    def forget(self) -> None:
        if self.kind == "device":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        # where this is not allowed, the peak is that of the process so far: an upper bound
        with suppress(OSError):
            CLEAR.write_text("5")


def _of_process(name: str) -> int | None:
    """A line of Linux's account of this process, in bytes."""
    try:
        match = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text())
    except OSError:
        return None
    return None if match is None else 1024 * int(match[1])
