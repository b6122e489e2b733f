"""A case for every pipeline class that the package supports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from recast_probe.testing import (
    tiny,
    tiny_fibo,
    tiny_joyimage,
    tiny_ltx,
    tiny_qwen,
    tiny_qwen21,
)
from recast_probe.testing.conformance.case import Case
from recast_probe.testing.tiny_pipelines import TINY

BESIDE = (
    "The adapter's tokens are attended to beside the blocks' own attention, where attention is "
    "read but cannot be cut, reused or patched."
)
STEP_0 = (
    "The pipeline computes its reference tokens in the first step only, so hidden states of its "
    "blocks cannot be patched; keys, values and attention output can."
)
MERGED = (
    "The pipeline computes its reference tokens in the first step only, so they cannot be merged "
    "later; use `Prune`."
)
REASONS = {
    "takes one reference image": "The pipeline takes one reference image.",
    "runs one prompt at a time": "The pipeline runs one prompt at a time; call the probe for each.",
    "can be reached by nnsight only": "Attention to the adapter's tokens is reached by nnsight "
    "only, not by hooks, so `accelerate` does not serve it.",
    "Knockout works on the blocks' own attention calls": BESIDE,
    "Record works on the blocks' own attention calls": BESIDE,
    "ReuseReference works on the blocks' own attention calls": BESIDE,
    "Reference tokens of flux-ip-adapter cannot be compared": "The adapter's tokens do not enter "
    "the sequence, so similar ones cannot be found and merged.",
    "cannot be cached by token": "`TokenCache` is not written for the blocks of this pipeline.",
    "takes no argument 'true_cfg_scale'": "The pipeline takes no `true_cfg_scale`, since "
    "it has no second call for guidance.",
    "cannot be merged": MERGED,
    "reuses their keys and values by itself": "The pipeline computes its reference tokens once and "
    "reuses their keys and values by itself, so `ReuseReference` has nothing to do.",
    "computes its reference tokens in the first step only": STEP_0,
    "computes text and reference tokens in the first step alone": STEP_0,
    "rows of one call": "Both branches of guidance are rows of one call, where hidden states are "
    "read and changed by call; with guidance off they can be patched.",
    "enter the transformer as pictures": "Reference tokens enter the transformer as pictures, so "
    "single ones cannot be compared and merged; use `Prune`.",
    "cannot be compared and merged": MERGED,
}
"""What the table of README says of each refusal, by the part of it that the cases announce."""

TWO = (tiny.tiny_image(), tiny.tiny_image(96, 64, seed=4))


def _remembering(build: Callable[[], Any], decoded: bool = True) -> Callable[[], Any]:
    """The same pipeline, whose VAE encodes each image once: at one megapixel it takes most of a
    tiny run's time.

    Args:
        decoded: decode equal latents once, too; where another test compares images that were each
            decoded.
    """

    def built() -> Any:
        pipe = build()
        tiny_qwen.remember_encoded(pipe.vae)
        if decoded:
            tiny_qwen.remember_decoded(pipe.vae)
        return pipe

    return built


def _reading_once(build: Callable[[], Any]) -> Callable[[], Any]:
    """The same pipeline, whose text encoder reads each text once: FLUX.2's have as many layers as
    the pipelines read from, FIBO's has a large vocabulary."""

    def built() -> Any:
        pipe = build()
        tiny_qwen.remember_read(pipe.text_encoder)
        return pipe

    return built


def supported_cases() -> list[Case]:
    """Tiny pipelines, one for each class, built when they are first used and then kept.

    Examples:
        >>> "FluxKontextPipeline" in [case.name for case in supported_cases()]
        True
    """
    return list(_cases())


@cache
def _cases() -> tuple[Case, ...]:
    masked = {"mask_image": tiny.tiny_mask()}
    one_prompt = {"several prompts": "runs one prompt at a time"}
    no_token_cache = {"token cache": "cannot be cached by token"}
    cases = (
        Case(
            "FluxKontextPipeline",
            TINY["flux-kontext"],
            TWO,
            refuses={"several references": "takes one reference image"},
        ),
        Case(
            "FluxKontextInpaintPipeline",
            TINY["flux-kontext-inpaint"],
            (tiny.tiny_image(), tiny.tiny_image(seed=4)),  # the mask fits both
            settings=masked,
            refuses={"several references": "takes one reference image"},
        ),
        Case(
            "FluxReduxPipeline",
            TINY["flux-redux"],
            TWO,
            refuses={"several references": "takes one reference image"},
        ),
        Case(
            "FluxPipeline + IP-Adapter",
            TINY["flux-ip-adapter"],
            TWO,
            refuses={
                "hooks equal nnsight": "can be reached by nnsight only",
                "accelerated equals probed": "can be reached by nnsight only",
                "cut equals minus infinity": "Knockout works on the blocks' own attention calls",
                "merged reference": "Reference tokens of flux-ip-adapter cannot be compared",
                "reused keys": "ReuseReference works on the blocks' own attention calls",
                "patched activations": "Record works on the blocks' own attention calls",
                **no_token_cache,
            },
        ),
        Case(
            "Flux2Pipeline",
            _reading_once(TINY["flux2"]),
            TWO,
            refuses={"true guidance": "takes no argument 'true_cfg_scale'"},
        ),
        Case(
            "Flux2KleinPipeline",
            _reading_once(TINY["flux2-klein"]),
            TWO,
            guidance={"guidance_scale": 4.0},
        ),
        Case(
            "Flux2KleinKVPipeline",
            _reading_once(TINY["flux2-klein-kv"]),
            TWO,
            refuses={
                "true guidance": "takes no argument 'true_cfg_scale'",
                "merged reference": "cannot be merged",
                "reused keys": "reuses their keys and values by itself",
                "patched activations": "computes its reference tokens in the first step only",
                **no_token_cache,
            },
        ),
        Case(
            "Flux2KleinInpaintPipeline",
            _reading_once(TINY["flux2-klein-inpaint"]),
            TWO,  # the mask is of the first
            settings=masked,
            guidance={"guidance_scale": 4.0},
        ),
        Case(
            "BriaFiboEditPipeline",
            _reading_once(TINY["bria-fibo-edit"]),
            TWO,
            settings={**tiny_fibo.SIZE, "guidance_scale": 1.0},
            guidance={"guidance_scale": 3.0, "negative_prompt": "blurry"},
            prompts=(tiny_fibo.edit("a red fox"), tiny_fibo.edit("snow")),
            refuses={"patched activations": "rows of one call", **no_token_cache},
        ),
        Case(
            "JoyImageEditPipeline",
            _remembering(TINY["joyimage-edit"]),
            TWO,
            settings={"guidance_scale": 1.0},
            guidance={"guidance_scale": 4.0, "negative_prompt": "blurry"},
            of_generation=lambda latents: latents[:, -1:],
            refuses={
                "several references": "takes one reference image",
                "merged reference": "enter the transformer as pictures",
                **one_prompt,
                **no_token_cache,
            },
        ),
        Case(
            "JoyImageEditPlusPipeline",
            _remembering(TINY["joyimage-edit-plus"]),
            TWO,
            settings={"guidance_scale": 1.0, **tiny_joyimage.SIZE},
            guidance={"guidance_scale": 4.0, "negative_prompt": "blurry"},
            of_generation=lambda latents: latents[:, : tiny_joyimage.GENERATION],
            refuses={
                "merged reference": "enter the transformer as pictures",
                "patched activations": "rows of one call",
                **no_token_cache,
            },
        ),
        Case(
            "LongCatImageEditPipeline",
            _remembering(TINY["longcat-image-edit"], decoded=False),
            TWO,
            settings={"guidance_scale": 1.0},
            guidance={"guidance_scale": 4.0, "negative_prompt": "blurry"},
            refuses={"several references": "takes one reference image", **one_prompt},
        ),
        Case(
            "LTXConditionPipeline",
            TINY["ltx-condition"],
            TWO,
            settings=tiny_ltx.SETTINGS,
            guidance={"guidance_scale": 3.0, "negative_prompt": "blurry"},
            refuses={
                "patched activations": "rows of one call",
                **one_prompt,
                **no_token_cache,
            },
        ),
        Case(
            "QwenImageEditPipeline",
            _remembering(TINY["qwen-image-edit"]),
            TWO,
            settings=tiny_qwen.SIZE,
            refuses={
                "several references": "takes one reference image",
                **one_prompt,
                **no_token_cache,
            },
        ),
        Case(
            "QwenImageEditInpaintPipeline",
            _remembering(TINY["qwen-image-edit-inpaint"]),
            TWO,
            settings={**masked, "strength": 0.8},  # the pipeline's own leaves two steps of three
            refuses={
                "several references": "takes one reference image",
                **one_prompt,
                **no_token_cache,
            },
        ),
        Case(
            "QwenImageEditPlusPipeline",
            _remembering(TINY["qwen-image-edit-plus"]),
            TWO,
            settings=tiny_qwen.SIZE,
            refuses={**one_prompt, **no_token_cache},
        ),
        Case(
            "QwenImageLayeredPipeline",
            _remembering(TINY["qwen-image-layered"]),
            TWO,
            settings={"layers": 2},
            refuses={
                "several references": "takes one reference image",
                **one_prompt,
                **no_token_cache,
            },
        ),
        Case(
            "QwenImage21Pipeline",
            TINY["qwen-image-2.1"],
            TWO,
            settings=tiny_qwen21.SIZE,
            prompts=("a red fox", "some snow"),  # of one length, which a batch must have
            refuses={
                "merged reference": "cannot be compared and merged",
                "reused keys": "reuses their keys and values by itself",
                "patched activations": "computes text and reference tokens in the first step alone",
                **no_token_cache,
            },
        ),
    )
    return tuple(
        replace(case, reasons={part: REASONS[part] for part in case.refuses.values()})
        for case in cases
    )
