"""A case for every pipeline class that the package supports."""

from __future__ import annotations

from typing import Any

from recast_probe.testing import tiny, tiny_flux2, tiny_ip_adapter, tiny_qwen
from recast_probe.testing.conformance.case import Case

TWO = (tiny.tiny_image(), tiny.tiny_image(96, 64, seed=4))


def _qwen(plus: bool) -> Any:
    # the second one with modulation of the reference by timestep 0, as the published one has it
    pipe = tiny_qwen.build_tiny_pipeline(plus=plus, zero_cond_t=plus)
    tiny_qwen.remember_encoded(pipe.vae)
    return pipe


def supported_cases() -> list[Case]:
    """Tiny pipelines, one for each class, built when they are first used.

    Examples:
        >>> "FluxKontextPipeline" in [case.name for case in supported_cases()]
        True
    """
    one_prompt = {"several prompts": "runs one prompt at a time"}
    no_token_cache = {"token cache": "cannot be cached by token"}
    return [
        Case(
            "FluxKontextPipeline",
            tiny.build_tiny_pipeline,
            TWO,
            refuses={"several references": "takes one reference image"},
        ),
        Case(
            "FluxKontextInpaintPipeline",
            tiny.build_inpaint_pipeline,
            (tiny.tiny_image(), tiny.tiny_image(seed=4)),  # the mask fits both
            settings={"mask_image": tiny.tiny_mask()},
            refuses={"several references": "takes one reference image"},
        ),
        Case(
            "FluxPipeline + IP-Adapter",
            tiny_ip_adapter.build_tiny_pipeline,
            TWO,
            refuses={
                "hooks equal nnsight": "can be reached by nnsight only",
                "accelerated equals probed": "can be reached by nnsight only",
                "cut equals minus infinity": "Knockout works on the blocks' own attention calls",
                "merged reference": "cannot be compared",
                "reused keys": "ReuseReference works on the blocks' own attention calls",
                "patched activations": "Record works on the blocks' own attention calls",
                **no_token_cache,
            },
        ),
        Case(
            "Flux2Pipeline",
            tiny_flux2.build_flux2,
            TWO,
            refuses={"true guidance": "takes no argument 'true_cfg_scale'"},
        ),
        Case("Flux2KleinPipeline", tiny_flux2.build_klein, TWO, guidance={"guidance_scale": 4.0}),
        Case(
            "QwenImageEditPipeline",
            lambda: _qwen(False),
            TWO,
            settings=tiny_qwen.SIZE,
            refuses={
                "several references": "takes one reference image",
                **one_prompt,
                **no_token_cache,
            },
        ),
        Case(
            "QwenImageEditPlusPipeline",
            lambda: _qwen(True),
            TWO,
            settings=tiny_qwen.SIZE,
            refuses={**one_prompt, **no_token_cache},
        ),
    ]
