"""What a result was made with, ready for JSON."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import recast_probe
from recast_probe._utils.compat import backend_name, chosen_backend
from recast_probe._utils.optional import PACKAGES

# reading what is installed takes a millisecond a package, and what is loaded stays what it is
_version = lru_cache(metadata.version)


def versions() -> dict[str, str]:
    """Versions of Python and of every package that takes part in a run."""
    found = {"recast_probe": recast_probe.__version__, "python": platform.python_version()}
    return found | {package: _version(package) for package in PACKAGES}


def model_name(pipeline: Any) -> str:
    """Repository name of a pipeline, or the last part of the folder it was loaded from."""
    path = Path(str(pipeline.config.get("_name_or_path") or "unnamed"))
    for part in path.parts:
        if part.startswith("models--"):  # a snapshot in the Hugging Face cache
            return part.removeprefix("models--").replace("--", "/")
    return path.name if path.is_absolute() or len(path.parts) > 2 else path.as_posix()


def attention_backend(transformer: torch.nn.Module) -> str:
    """The attention backend that diffusers would use for this transformer."""
    processors = getattr(transformer, "attn_processors", {}).values()
    return ", ".join(sorted({backend_name(chosen_backend(each)) for each in processors}))


def now() -> str:
    """The time, UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
