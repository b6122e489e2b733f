"""A tiny pipeline of every family, with random weights, by the family's name.

``Probe.tiny(name)``, ``--model tiny:NAME`` and the cases of the conformance suite build theirs
here. The same name gives the same weights every time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from recast_probe._utils.suggestions import did_you_mean
from recast_probe.errors import InputError
from recast_probe.testing import (
    tiny,
    tiny_fibo,
    tiny_flux2,
    tiny_ip_adapter,
    tiny_joyimage,
    tiny_longcat,
    tiny_ltx,
    tiny_qwen,
    tiny_qwen21,
    tiny_redux,
)

# a new family adds its line here, and names it in its case of conformance/supported.py
TINY: Mapping[str, Callable[[], Any]] = {
    "flux-kontext": tiny.build_tiny_pipeline,
    "flux-kontext-inpaint": tiny.build_inpaint_pipeline,
    "flux-redux": tiny_redux.build_tiny_pipeline,
    "flux-ip-adapter": tiny_ip_adapter.build_tiny_pipeline,
    "flux2": tiny_flux2.build_flux2,
    "flux2-klein": tiny_flux2.build_klein,
    "flux2-klein-kv": tiny_flux2.build_klein_kv,
    "flux2-klein-inpaint": tiny_flux2.build_klein_inpaint,
    "bria-fibo-edit": tiny_fibo.build_tiny_pipeline,
    "joyimage-edit": tiny_joyimage.build_tiny_pipeline,
    "joyimage-edit-plus": partial(tiny_joyimage.build_tiny_pipeline, plus=True),
    "longcat-image-edit": tiny_longcat.build_tiny_pipeline,
    "ltx-condition": tiny_ltx.build_tiny_pipeline,
    "qwen-image-edit": tiny_qwen.build_tiny_pipeline,
    "qwen-image-edit-inpaint": tiny_qwen.build_inpaint_pipeline,
    # with modulation of the reference by timestep 0, as the published one has it
    "qwen-image-edit-plus": partial(tiny_qwen.build_tiny_pipeline, plus=True, zero_cond_t=True),
    "qwen-image-layered": tiny_qwen.build_layered,
    "qwen-image-2.1": tiny_qwen21.build_tiny_pipeline,
}
"""What builds each family's tiny pipeline, on the CPU in float32 and without a download."""


def tiny_pipeline(name: str) -> Any:
    """A family's tiny pipeline, built anew.

    Args:
        name: of the family, as ``probe.family.name`` and the keys of ``TINY`` have it.

    Raises:
        InputError: no family of this name has a tiny pipeline.

    Examples:
        >>> type(tiny_pipeline("flux2-klein")).__name__
        'Flux2KleinPipeline'
        >>> tiny_pipeline("sdxl")
        Traceback (most recent call last):
            ...
        recast_probe.errors.InputError: There is no tiny pipeline 'sdxl'; there is flux-kontext, ...
    """
    if name not in TINY:
        raise InputError(
            f"There is no tiny pipeline {name!r}; there is {', '.join(TINY)}."
            f"{did_you_mean(name, TINY)}"
        )
    pipe = TINY[name]()
    pipe.set_progress_bar_config(disable=True)
    return pipe
