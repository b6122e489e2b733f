"""FLUX.1 Redux in one pipeline: diffusers' prior, and then diffusers' own FluxPipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from diffusers import FluxPipeline, FluxPriorReduxPipeline
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from PIL import Image
from transformers import SiglipVisionModel

from recast_probe.errors import InputError

TEXT_PARTS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
IMAGE_PARTS = ("image_encoder", "feature_extractor", "image_embedder")
# text tokens that the prior makes without a prompt
TEXT_TOKENS = 512


class FluxReduxPipeline(FluxPipeline):
    """``FluxPriorReduxPipeline`` and ``FluxPipeline`` of diffusers as one object.

    The prior makes tokens of a reference image and puts them after those of the text; the pipeline
    makes an image from both. Images are those of the two pipelines called one after the other.
    ``from_pipelines`` puts it together, ``save_pretrained`` writes one folder with all parts, and
    ``from_pretrained`` reads that.

    Args:
        scheduler, vae, transformer: of the ``FluxPipeline``.
        image_encoder, feature_extractor, image_embedder: of the prior.
        text_encoder, tokenizer, text_encoder_2, tokenizer_2: None where no prompt is ever given.

    Examples:
        >>> from recast_probe.testing import tiny, tiny_redux
        >>> pipe = tiny_redux.build_tiny_pipeline()
        >>> settings = {"num_inference_steps": 2, "height": 64, "width": 64}
        >>> pipe(tiny.tiny_image(), "a cat", **settings).images[0].size
        (64, 64)
    """

    model_cpu_offload_seq = (
        "text_encoder->text_encoder_2->image_encoder->image_embedder->transformer->vae"
    )
    _optional_components: ClassVar[list[str]] = list(TEXT_PARTS)

    def __init__(
        self,
        scheduler: Any,
        vae: Any,
        transformer: Any,
        image_encoder: SiglipVisionModel,
        feature_extractor: Any,
        image_embedder: ReduxImageEncoder,
        text_encoder: Any = None,
        tokenizer: Any = None,
        text_encoder_2: Any = None,
        tokenizer_2: Any = None,
    ) -> None:
        super().__init__(
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            transformer=transformer,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        self.register_modules(image_embedder=image_embedder)
        # one object with shallow copies, on which a run is rehearsed
        self._present = {"image_tokens": 0}

    @classmethod
    def from_pipelines(cls, prior: Any, pipe: Any) -> FluxReduxPipeline:
        """Both pipelines as one, which shares their parts.

        Args:
            prior: ``FluxPriorReduxPipeline``; its text encoders read the prompts.
            pipe: ``FluxPipeline``; its text encoders do so where the prior has none.

        Raises:
            InputError: pipelines of other classes, or the two in another order.

        Examples:
            >>> from recast_probe.testing import tiny_redux
            >>> pipe = FluxReduxPipeline.from_pipelines(*tiny_redux.build_both())
            >>> rp.Probe(pipe).family.name
            'flux-redux'
        """
        for given, kind in ((prior, FluxPriorReduxPipeline), (pipe, FluxPipeline)):
            if not isinstance(given, kind):
                raise InputError(
                    f"from_pipelines takes a FluxPriorReduxPipeline and then a FluxPipeline; a "
                    f"{type(given).__name__} is no {kind.__name__}."
                )
        own = {name: getattr(pipe, name) for name in ("scheduler", "vae", "transformer")}
        image = {name: getattr(prior, name) for name in IMAGE_PARTS}
        reader = pipe if prior.text_encoder is None else prior
        return cls(**own, **image, **{name: getattr(reader, name) for name in TEXT_PARTS})

    @property
    def image_tokens(self) -> int:
        """Tokens of the reference among the text states of the present call, or of the last one."""
        return self._present["image_tokens"]

    @property
    def prior(self) -> FluxPriorReduxPipeline:
        """diffusers' own prior with the parts of this pipeline, given embeddings of a text.

        Text is encoded before: the prior asks its text encoder for a dtype alone, and without one
        it would replace the embeddings by zeros.
        """
        image = {name: getattr(self, name) for name in IMAGE_PARTS}
        return FluxPriorReduxPipeline(**image, text_encoder=self.image_embedder)

    def no_prompt(self) -> dict[str, torch.Tensor]:
        """What the prior takes in the place of a prompt where it has no text encoders: zeros.

        Returns:
            ``prompt_embeds`` (1, 512, width) and ``pooled_prompt_embeds`` (1, pooled width), as
            arguments of a call.

        Examples:
            >>> from recast_probe.testing import tiny_redux
            >>> found = tiny_redux.build_tiny_pipeline().no_prompt()
            >>> {name: tuple(each.shape) for name, each in found.items()}
            {'prompt_embeds': (1, 512, 32), 'pooled_prompt_embeds': (1, 32)}
        """
        config, dtype = self.transformer.config, self.image_embedder.dtype
        shapes = {
            "prompt_embeds": (1, TEXT_TOKENS, config.joint_attention_dim),
            "pooled_prompt_embeds": (1, config.pooled_projection_dim),
        }
        device = self._execution_device
        return {
            name: torch.zeros(shape, device=device, dtype=dtype) for name, shape in shapes.items()
        }

    @torch.no_grad()
    def __call__(
        self,
        image: Image.Image | None = None,
        prompt: str | list[str] | None = None,
        prompt_2: str | list[str] | None = None,
        negative_prompt: str | list[str] | None = None,
        negative_prompt_2: str | list[str] | None = None,
        true_cfg_scale: float = 1.0,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 28,
        sigmas: list[float] | None = None,
        guidance_scale: float = 3.5,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
        prompt_embeds_scale: float = 1.0,
        pooled_prompt_embeds_scale: float = 1.0,
        output_type: str | None = "pil",
        return_dict: bool = True,
        joint_attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        max_sequence_length: int = 512,
    ) -> Any:
        """Make images from a reference and prompts.

        Args:
            image: the reference, one picture; None makes ``FluxPipeline``'s own image of the text.
                The prior adds the tokens of several up, so there is no more than one.
            prompt: one or several, each of which gets the image. Without any, and without
                embeddings, the text is zeros, as the prior has it without text encoders.
            negative_prompt: with ``true_cfg_scale`` above 1, what guidance leads away from. It has
                the image too, so that guidance is about the text alone.
            prompt_embeds, negative_prompt_embeds: of the text, without tokens of the image.
            prompt_embeds_scale: factor of text and image tokens, as in the prior.
            pooled_prompt_embeds_scale: factor of the pooled text.
            max_sequence_length: text tokens of a prompt.

            The others are those of ``FluxPipeline``.

        Raises:
            InputError: an image that is not one picture, or a prompt without text encoders.
        """
        settings: dict[str, Any] = {
            "true_cfg_scale": true_cfg_scale,
            "height": height,
            "width": width,
            "num_inference_steps": num_inference_steps,
            "sigmas": sigmas,
            "guidance_scale": guidance_scale,
            "generator": generator,
            "latents": latents,
            "output_type": output_type,
            "return_dict": return_dict,
            "joint_attention_kwargs": joint_attention_kwargs,
            "callback_on_step_end": callback_on_step_end,
            "callback_on_step_end_tensor_inputs": list(callback_on_step_end_tensor_inputs),
            "max_sequence_length": max_sequence_length,
        }
        if prompt is None and prompt_embeds is None:
            text = self.no_prompt()
            prompt_embeds, pooled_prompt_embeds = text.values()
        positive = {
            "prompt": prompt,
            "prompt_2": prompt_2,
            "prompt_embeds": prompt_embeds,
            "pooled_prompt_embeds": pooled_prompt_embeds,
        }
        negative = {
            "negative_prompt": negative_prompt,
            "negative_prompt_2": negative_prompt_2,
            "negative_prompt_embeds": negative_prompt_embeds,
            "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
        }
        default = self.default_sample_size * self.vae_scale_factor
        self.check_inputs(
            height=height or default,
            width=width or default,
            max_sequence_length=max_sequence_length,
            callback_on_step_end_tensor_inputs=settings["callback_on_step_end_tensor_inputs"],
            **positive,
            **negative,
        )
        self._present["image_tokens"] = 0
        if image is not None:
            lora_scale = (joint_attention_kwargs or {}).get("scale")
            scales = {
                "prompt_embeds_scale": float(prompt_embeds_scale),
                "pooled_prompt_embeds_scale": float(pooled_prompt_embeds_scale),
            }

            def with_image(texts: dict[str, Any]) -> dict[str, Any]:
                return self._with_image(image, texts, max_sequence_length, lora_scale, scales)

            positive = with_image(positive)
            leading = negative_prompt is not None or negative_prompt_embeds is not None
            if true_cfg_scale > 1 and leading:
                negative = with_image(negative)
        return super().__call__(**positive, **negative, **settings)

    def _with_image(
        self,
        image: Image.Image,
        texts: dict[str, Any],
        length: int,
        lora_scale: float | None,
        scales: dict[str, float],
    ) -> dict[str, Any]:
        """The same arguments of a text with embeddings that end with the image's tokens."""
        if not isinstance(image, Image.Image):
            raise InputError(
                f"The reference image must be one PIL.Image.Image, not {type(image).__name__}."
            )
        (_, prompt), (_, second), (name, embeddings), (pooled_name, pooled) = texts.items()
        if embeddings is None:
            if missing := [part for part in TEXT_PARTS if getattr(self, part) is None]:
                raise InputError(
                    f"This {type(self).__name__} has no {missing[0]}, so it reads no prompt; load "
                    f"it, or give {name} and {pooled_name}."
                )
            embeddings, pooled, _ = self.encode_prompt(
                prompt, second, max_sequence_length=length, lora_scale=lora_scale
            )
        prior = self.prior
        # the prior adds up what it makes of several texts, and scales the pooled one in place
        made = [
            prior(
                image,
                prompt_embeds=text[None],
                pooled_prompt_embeds=vector[None].clone(),
                **scales,
                return_dict=False,
            )
            for text, vector in zip(embeddings, pooled, strict=True)
        ]
        found, vectors = (torch.cat(each) for each in zip(*made, strict=True))
        self._present["image_tokens"] = found.shape[1] - embeddings.shape[1]
        return {name: found, pooled_name: vectors}
