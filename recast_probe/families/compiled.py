"""A compiled transformer cannot be traced; said before anything runs."""

from __future__ import annotations

from typing import Any

from recast_probe.errors import UnsupportedPipelineError


def refuse_compiled(pipeline: Any) -> None:
    """Raise UnsupportedPipelineError where the transformer, or a block of it, is compiled."""
    transformer = getattr(pipeline, "transformer", None)
    if transformer is None:
        return
    if hasattr(transformer, "_orig_mod") or any(
        getattr(module, "_compiled_call_impl", None) is not None for module in transformer.modules()
    ):
        raise UnsupportedPipelineError(
            "The transformer is compiled with torch.compile, and a compiled block cannot "
            "be traced. Probe the pipeline before compiling it."
        )
