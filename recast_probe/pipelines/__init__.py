"""In-context diffusion transformers that the probe knows; one file each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.pipelines.base import AttentionCall, Family, Schedule
from recast_probe.pipelines.bria.fibo_edit import BriaFiboEdit
from recast_probe.pipelines.declared import DeclaredFamily
from recast_probe.pipelines.flux.kontext import FluxKontext
from recast_probe.pipelines.flux.kontext_inpaint import FluxKontextInpaint
from recast_probe.pipelines.flux.redux import FluxRedux
from recast_probe.pipelines.flux2.flux2 import Flux2
from recast_probe.pipelines.flux2.klein import Flux2Klein
from recast_probe.pipelines.flux2.klein_inpaint import Flux2KleinInpaint
from recast_probe.pipelines.flux2.klein_kv import Flux2KleinKV
from recast_probe.pipelines.ip_adapter.flux_ip_adapter import FluxIPAdapter
from recast_probe.pipelines.joyimage.edit import JoyImageEdit
from recast_probe.pipelines.joyimage.edit_plus import JoyImageEditPlus
from recast_probe.pipelines.longcat.image_edit import LongCatImageEdit
from recast_probe.pipelines.ltx.condition import LTXCondition
from recast_probe.pipelines.qwen.image_21 import QwenImage21
from recast_probe.pipelines.qwen.image_edit import QwenImageEdit
from recast_probe.pipelines.qwen.image_edit_inpaint import QwenImageEditInpaint
from recast_probe.pipelines.qwen.image_edit_plus import QwenImageEditPlus
from recast_probe.pipelines.qwen.layered import QwenImageLayered
from recast_probe.pipelines.rehearsed import Rehearsed

FAMILIES: list[type[Family]] = [
    FluxKontext,
    FluxKontextInpaint,
    FluxRedux,
    FluxIPAdapter,
    Flux2,
    Flux2Klein,
    LongCatImageEdit,
    Flux2KleinKV,
    Flux2KleinInpaint,
    BriaFiboEdit,
    JoyImageEdit,
    JoyImageEditPlus,
    LTXCondition,
    QwenImageEdit,
    QwenImageEditInpaint,
    QwenImageEditPlus,
    QwenImageLayered,
    QwenImage21,
]
"""Every known family; `register_family` adds to them."""

REFUSED: dict[str, str] = {
    "FluxPriorReduxPipeline": "it makes tokens of an image and no image; put it together with a "
    "FluxPipeline by recast_probe.FluxReduxPipeline.from_pipelines(prior, pipe), and save that "
    "with save_pretrained(folder) to load it by its name"
}
"""Pipeline classes that look like a known one and are not, each with the reason."""


# what a family must say of itself besides its methods
FACTS = ("name", "pipelines", "parts", "text_parts", "texts", "processors")


def register_family(family: type[Family]) -> type[Family]:
    """Let pipelines of another class be probed, everywhere in this process.

    Args:
        family: inherits from `Family` or from a family of the package. `testing.conformance` shows
            whether it is right.

    Returns:
        The same class, so that this can be its decorator.

    Raises:
        InputError: it is not a family, lacks a method or a fact, or its name or one of its
            pipelines has a family already.

    Examples:
        >>> register_family(FluxKontext)
        Traceback (most recent call last):
            ...
        recast_probe.errors.InputError: There is a family 'flux-kontext' already, ...
    """
    if not (isinstance(family, type) and issubclass(family, Family)):
        raise InputError(
            f"register_family takes a class that inherits from Family, not {family!r}."
        )
    facts = [fact for fact in FACTS if not hasattr(family, fact)]
    if lacking := [*sorted(family.__abstractmethods__), *facts]:
        raise InputError(f"{family.__name__} lacks {', '.join(lacking)}; see Family.")
    for known in FAMILIES:
        if known.name == family.name:
            raise InputError(
                f"There is a family {family.name!r} already, {known.__name__}; give "
                f"{family.__name__} another name."
            )
        if taken := sorted(set(known.pipelines) & set(family.pipelines)):
            raise InputError(
                f"{taken[0]} has a family already, {known.name!r}; {family.__name__} can serve a "
                "subclass of it under a name of its own."
            )
    FAMILIES.append(family)
    return family


def find_family(pipe: Any, *, traced: bool = True, model: str | None = None) -> Family:
    """The family of a built pipeline, bound to it.

    Args:
        traced: its blocks shall be traced, so they must not be compiled.
        model: see ``Family``.

    Raises:
        InputError: the name of a model in place of a pipeline.
        UnsupportedPipelineError: the pipeline's class is not known, or its parts are not the
            expected ones; the message names what was found and what is supported.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> find_family(build_tiny_pipeline()).block_kinds
        ['double', 'double', 'single', 'single', 'single']
    """
    if isinstance(pipe, str | Path):
        raise InputError(
            f"{str(pipe)!r} is a name and not a pipeline; load it with "
            f"Probe.from_pretrained({str(pipe)!r}), or with diffusers."
        )
    # the nearest ancestor decides, so that a subclass may have a separate family
    for name in (base.__name__ for base in type(pipe).__mro__):
        if name in REFUSED:
            raise refused(name)
        if (kind := family_of_class(name)) is not None:
            family = kind(pipe, model)
            if traced:
                family.check_traceable()
            family.check()
            return family
    raise refused(type(pipe).__name__)


def refused(class_name: str) -> UnsupportedPipelineError:
    """The error for a pipeline class that is not supported: why, or what is supported.

    Examples:
        >>> type(refused("StableDiffusionPipeline")).__name__
        'UnsupportedPipelineError'
    """
    if class_name in REFUSED:
        return UnsupportedPipelineError(f"{class_name} is not supported: {REFUSED[class_name]}.")
    return UnsupportedPipelineError(
        f"{class_name} is not supported. Supported pipelines: {', '.join(supported_pipelines())}."
    )


def supported_pipelines() -> list[str]:
    """Names of the diffusers pipeline classes that can be probed.

    Examples:
        >>> "FluxKontextPipeline" in supported_pipelines()
        True
    """
    return [name for family in FAMILIES for name in family.pipelines]


def family_of_class(class_name: str) -> type[Family] | None:
    """The family of a pipeline class, by the name of the class; None where it is not known.

    Examples:
        >>> family_of_class("Flux2Pipeline").name
        'flux2'
        >>> family_of_class("StableDiffusionPipeline") is None
        True
    """
    return next((family for family in FAMILIES if class_name in family.pipelines), None)


__all__ = [
    "FAMILIES",
    "AttentionCall",
    "BriaFiboEdit",
    "DeclaredFamily",
    "Family",
    "Flux2",
    "Flux2Klein",
    "Flux2KleinInpaint",
    "Flux2KleinKV",
    "FluxIPAdapter",
    "FluxKontext",
    "FluxKontextInpaint",
    "FluxRedux",
    "JoyImageEdit",
    "JoyImageEditPlus",
    "LTXCondition",
    "LongCatImageEdit",
    "QwenImage21",
    "QwenImageEdit",
    "QwenImageEditInpaint",
    "QwenImageEditPlus",
    "QwenImageLayered",
    "Rehearsed",
    "Schedule",
    "family_of_class",
    "find_family",
    "refused",
    "register_family",
    "supported_pipelines",
]
