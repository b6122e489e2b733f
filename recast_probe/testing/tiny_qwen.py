"""Tiny random Qwen-Image-Edit and Qwen-Image-Layered pipelines, built from configs in seconds.

They are in the diffusers layout, and every part is of the same class as in the published models,
only smaller: 3 double-stream blocks of 2 heads. The pipelines scale every reference to a size of
their own whatever the model, one megapixel for editing, so the VAE halves it six times and a token
stands for 128 x 128 pixels: a square reference has 8 x 8 tokens. The tokenizer knows the words of
the template for editing as whole tokens, as Qwen's does, and letters.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditInpaintPipeline,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
    QwenImageLayeredPipeline,
    QwenImageTransformer2DModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin

from recast_probe.testing.tiny_parts import strengthen

BLOCKS = 3
HEADS = 2
HEAD_DIMENSION = 16
TOKEN_PIXELS = 128
PATCH = 16
SIZE = {"height": 256, "width": 384}
GENERATION = (2, 3)
TEXT_WIDTH = 32
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
WORDS = (
    "system user assistant Describe the key features of the input image (color, shape, size, "
    "texture, objects, background), then explain how the user's text instruction should alter or "
    "modify the image. Generate a new image that meets the user's requirements while maintaining "
    "consistency with the original input where appropriate. Picture"
)


class WithoutVideos(ProcessorMixin):
    """Mixed into a processor of Qwen's: without its part for videos, which needs torchvision."""

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
    ) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


class ImageProcessor(WithoutVideos, Qwen2VLProcessor):
    """Qwen2VLProcessor without videos.

    diffusers saves it under this module's name and finds it there again, once this is imported.
    """


def read_parts() -> dict[str, Any]:
    """What reads the prompt and the pictures: tokenizer, processor and text encoder.

    Examples:
        >>> sorted(read_parts())
        ['processor', 'text_encoder', 'tokenizer']
    """
    tokenizer = build_tokenizer()
    processor = ImageProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            size={"shortest_edge": 4 * 28 * 28, "longest_edge": 8 * 28 * 28}
        ),
        tokenizer=tokenizer,
        chat_template="{{ messages }}",
    )
    text_encoder = _text_encoder(tokenizer).eval()
    return {"tokenizer": tokenizer, "processor": processor, "text_encoder": text_encoder}


def build_tokenizer() -> Qwen2Tokenizer:
    letters = {letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()))}
    words = [*WORDS.replace(",", " ").replace(".", " ").split(), "),"]
    tokenizer = Qwen2Tokenizer(vocab=letters, merges=[]).train_new_from_iterator(
        [f"{word} {word}" for word in words], 4096, show_progress=False, min_frequency=1
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.padding_side = "left"
    return tokenizer


def _text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    settings = reader_settings(tokenizer, {"num_hidden_layers": 1}, {"fullatt_block_indexes": [0]})
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**settings))


def reader_settings(
    tokenizer: Qwen2Tokenizer, text: Mapping[str, Any], vision: Mapping[str, Any]
) -> dict[str, Any]:
    """The config of a text encoder that reads a tokenizer's tokens and pictures.

    Args:
        text: what else its language model is given.
        vision: what else its vision model is given.

    Examples:
        >>> sorted(reader_settings(build_tokenizer(), {}, {}))[:3]
        ['image_token_id', 'text_config', 'video_token_id']
    """
    number = tokenizer.convert_tokens_to_ids
    return {
        "text_config": {
            "vocab_size": len(tokenizer),
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [2, 3, 3],
                "rope_theta": 1e6,
            },
            "bos_token_id": 0,
            "eos_token_id": 0,
            "pad_token_id": 0,
            **text,
        },
        "vision_config": {
            "depth": 1,
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_heads": 2,
            "out_hidden_size": TEXT_WIDTH,
            **vision,
        },
        "image_token_id": number("<|image_pad|>"),
        "video_token_id": number("<|video_pad|>"),
        "vision_start_token_id": number("<|vision_start|>"),
        "vision_end_token_id": number("<|vision_end|>"),
    }


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Qwen-Image's schedule, which is shifted by the number of generation tokens.

    Examples:
        >>> build_scheduler().config.shift_terminal
        0.02
    """
    return FlowMatchEulerDiscreteScheduler(
        shift=1.0,
        use_dynamic_shifting=True,
        base_shift=0.5,
        max_shift=0.9,
        base_image_seq_len=256,
        max_image_seq_len=8192,
        shift_terminal=0.02,
    )


def build_tiny_pipeline(
    plus: bool = False, seed: int = 0, zero_cond_t: bool = False
) -> QwenImageEditPipeline | QwenImageEditPlusPipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Examples:
        >>> type(build_tiny_pipeline(plus=True)).__name__
        'QwenImageEditPlusPipeline'
    """
    parts = _random_parts(seed, zero_cond_t=zero_cond_t)
    pipeline = (QwenImageEditPlusPipeline if plus else QwenImageEditPipeline)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_layered(seed: int = 0) -> QwenImageLayeredPipeline:
    """A random pipeline that takes a picture apart into layers with transparency.

    A square reference has 5 x 5 tokens, which is 640 x 640 pixels.

    Examples:
        >>> build_layered().transformer.config.use_layer3d_rope
        True
    """
    # the pipeline takes a picture with as many channels as latents have for encoded already
    parts = _random_parts(seed, 4, 8, use_layer3d_rope=True, use_additional_t_cond=True)
    pipeline = QwenImageLayeredPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _random_parts(
    seed: int, channels: int = 3, latents: int = 4, **transformer_settings: bool
) -> dict[str, Any]:
    """Parts of a pipeline whose pictures and latents have so many channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = read_parts()
        vae = AutoencoderKLQwenImage(
            input_channels=channels,
            base_dim=2,
            z_dim=latents,
            dim_mult=[1, 1, 1, 1, 1, 1, 1],
            num_res_blocks=0,
            temperal_downsample=[False] * 6,
            latents_mean=[0.1, -0.1, 0.2, 0.0] * (latents // 4),
            latents_std=[1.0, 0.9, 1.1, 1.2] * (latents // 4),
        )
        transformer = QwenImageTransformer2DModel(
            in_channels=4 * latents,
            out_channels=latents,
            num_layers=BLOCKS,
            attention_head_dim=HEAD_DIMENSION,
            num_attention_heads=HEADS,
            joint_attention_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 6, 6),
            **transformer_settings,
        )
        strengthen(transformer, vary_norms=True)
        strengthen(vae.decoder.conv_out, 8)
    return parts | {
        "scheduler": build_scheduler(),
        "vae": vae.eval(),
        "transformer": transformer.eval(),
    }


def build_inpaint_pipeline(seed: int = 0) -> QwenImageEditInpaintPipeline:
    """``build_tiny_pipeline(seed=seed)`` as the pipeline that repaints a part of an image.

    It decodes one megapixel in every run. So its VAE is Wan's, the model of which Qwen's is a copy,
    since that takes patches of 16 x 16 pixels, and halves twice: a tenth of the time.

    Examples:
        >>> type(build_inpaint_pipeline()).__name__
        'QwenImageEditInpaintPipeline'
    """
    parts = build_tiny_pipeline(seed=seed).components | {"vae": _patching_vae(seed)}
    pipeline = QwenImageEditInpaintPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _patching_vae(seed: int) -> AutoencoderKLWan:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(
            base_dim=2,
            z_dim=4,
            dim_mult=[1, 1, 1],
            num_res_blocks=0,
            # the pipeline counts these to know how much smaller latents are
            temperal_downsample=[False] * 6,
            latents_mean=[0.1, -0.1, 0.2, 0.0],
            latents_std=[1.0, 0.9, 1.1, 1.2],
            scale_factor_spatial=TOKEN_PIXELS // 2,
            patch_size=PATCH,
            in_channels=3 * PATCH**2,
            out_channels=3 * PATCH**2,
        )
        strengthen(vae.decoder.conv_out, 8)
    return vae.eval()


def save_tiny_pipeline(folder: Path, plus: bool = False, **settings: Any) -> Path:
    """Save ``build_tiny_pipeline`` into ``folder`` as a diffusers repository."""
    build_tiny_pipeline(plus, **settings).save_pretrained(folder, safe_serialization=True)
    return folder


def remember_encoded(vae: Any) -> None:
    """Encode each image once: at one megapixel this takes most of a tiny run's time.

    What is remembered is no part of the pipeline's identity, as with every ``lru_cache``.
    """
    encode = vae.encode

    @lru_cache(maxsize=16)
    def encoded(image: _ByNumbers) -> Any:
        return encode(image.tensor)

    vae.encode = lambda image: encoded(_ByNumbers(image))


def remember_decoded(vae: Any) -> None:
    """Decode equal latents once, as long as not many others come between."""
    decode = vae.decode

    @lru_cache(maxsize=6)
    def decoded(latents: _ByNumbers, return_dict: bool) -> Any:
        return decode(latents.tensor, return_dict=return_dict)

    vae.decode = lambda latents, return_dict=True: decoded(_ByNumbers(latents), return_dict)


def remember_read(text_encoder: Any) -> None:
    """Read each text once, where a text encoder has so many layers that it takes much of a run."""
    forward = text_encoder.forward

    def key(value: Any) -> Any:
        return _ByNumbers(value) if torch.is_tensor(value) else value

    def value_of(key: Any) -> Any:
        return key.tensor if isinstance(key, _ByNumbers) else key

    @lru_cache(maxsize=16)
    def read(*given: Any, **named: Any) -> Any:
        return forward(*map(value_of, given), **{k: value_of(v) for k, v in named.items()})

    def remembered(*given: Any, **named: Any) -> Any:
        return read(*map(key, given), **{k: key(v) for k, v in named.items()})

    text_encoder.forward = remembered


class _ByNumbers:
    """A tensor as a key, equal to those of the same numbers."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __hash__(self) -> int:
        return hash((self.tensor.dtype, self.tensor.shape, float(self.tensor.double().sum())))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _ByNumbers)
            and self.tensor.dtype == other.tensor.dtype
            and torch.equal(self.tensor, other.tensor)
        )
