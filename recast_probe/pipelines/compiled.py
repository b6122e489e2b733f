"""A compiled transformer cannot be traced, nor its inputs changed; said before anything runs."""

from __future__ import annotations

from typing import Any

import torch

from recast_probe._utils.compat import before_compiling, compiled_in_place
from recast_probe.errors import UnsupportedPipelineError


def is_compiled(module: torch.nn.Module) -> bool:
    """Whether this very module is compiled, in place or by a wrapper."""
    return before_compiling(module) is not None or compiled_in_place(module)


def refuse_compiled(pipeline: Any) -> None:
    """Raise UnsupportedPipelineError where the transformer, or a block of it, is compiled."""
    transformer = getattr(pipeline, "transformer", None)
    if transformer is not None and any(map(is_compiled, transformer.modules())):
        raise UnsupportedPipelineError(
            "The transformer is compiled with torch.compile, and a compiled block cannot "
            "be traced. Probe the pipeline before compiling it."
        )


def refuse_wholly_compiled(transformer: torch.nn.Module) -> None:
    """Raise UnsupportedPipelineError where the transformer is compiled as one."""
    if is_compiled(transformer):
        raise UnsupportedPipelineError(
            "The transformer is compiled as a whole, so its inputs cannot be changed. Compile its "
            "blocks instead: pipe.transformer.compile_repeated_blocks()."
        )
