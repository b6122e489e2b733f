"""Tiny random Qwen-Image-Edit pipelines in the diffusers layout, built from configs in seconds.

Every part is of the same class as in the published models, only smaller: 3 double-stream blocks of
2 heads. The pipelines scale every reference to one megapixel whatever the model, so the VAE halves
it seven times: a token stands for 128 x 128 pixels, and a square reference has 8 x 8 tokens. The
tokenizer knows the words of the pipelines' template as whole tokens, as Qwen's does, and letters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImageEditPipeline,
    QwenImageEditPlusPipeline,
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

BLOCKS = 3
HEADS = 2
HEAD_DIMENSION = 16
TOKEN_PIXELS = 128
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


class ImageProcessor(Qwen2VLProcessor):
    """Qwen2VLProcessor without its part for videos, which needs torchvision to be installed.

    diffusers saves it under this module's name and finds it there again, once this is imported.
    """

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, **settings: Any) -> None:
        self.image_token, self.video_token = "<|image_pad|>", "<|video_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, **settings)

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


def _tokenizer() -> Qwen2Tokenizer:
    letters = {letter: n for n, letter in enumerate(sorted(ByteLevel.alphabet()))}
    words = [*WORDS.replace(",", " ").replace(".", " ").split(), "),"]
    tokenizer = Qwen2Tokenizer(vocab=letters, merges=[]).train_new_from_iterator(
        [f"{word} {word}" for word in words], 4096, show_progress=False, min_frequency=1
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    tokenizer.padding_side = "left"
    return tokenizer


def _text_encoder(tokenizer: Qwen2Tokenizer) -> Qwen2_5_VLForConditionalGeneration:
    number = tokenizer.convert_tokens_to_ids
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": TEXT_WIDTH,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
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
            },
            vision_config={
                "depth": 1,
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_heads": 2,
                "out_hidden_size": TEXT_WIDTH,
                "fullatt_block_indexes": [0],
            },
            image_token_id=number("<|image_pad|>"),
            video_token_id=number("<|video_pad|>"),
            vision_start_token_id=number("<|vision_start|>"),
            vision_end_token_id=number("<|vision_end|>"),
        )
    )


def build_tiny_pipeline(
    plus: bool = False, seed: int = 0, zero_cond_t: bool = False
) -> QwenImageEditPipeline | QwenImageEditPlusPipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Examples:
        >>> type(build_tiny_pipeline(plus=True)).__name__
        'QwenImageEditPlusPipeline'
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _tokenizer()
        processor = ImageProcessor(
            image_processor=Qwen2VLImageProcessorPil(
                size={"shortest_edge": 4 * 28 * 28, "longest_edge": 8 * 28 * 28}
            ),
            tokenizer=tokenizer,
            chat_template="{{ messages }}",
        )
        text_encoder = _text_encoder(tokenizer)
        vae = AutoencoderKLQwenImage(
            base_dim=2,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1, 1, 1],
            num_res_blocks=0,
            temperal_downsample=[False] * 6,
            latents_mean=[0.1, -0.1, 0.2, 0.0],
            latents_std=[1.0, 0.9, 1.1, 1.2],
        )
        transformer = QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=BLOCKS,
            attention_head_dim=HEAD_DIMENSION,
            num_attention_heads=HEADS,
            joint_attention_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 6, 6),
            zero_cond_t=zero_cond_t,
        )
        # stronger than the default initialisation, so that reference and prompt show in the image
        with torch.no_grad():
            for parameter in transformer.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(2)
                else:  # no two norms alike
                    parameter.add_(0.2 * torch.randn_like(parameter))
            vae.decoder.conv_out.weight.mul_(8)
        scheduler = FlowMatchEulerDiscreteScheduler(
            shift=1.0,
            use_dynamic_shifting=True,
            base_shift=0.5,
            max_shift=0.9,
            base_image_seq_len=256,
            max_image_seq_len=8192,
            shift_terminal=0.02,
        )
    parts: dict[str, Any] = {
        "scheduler": scheduler,
        "vae": vae.eval(),
        "text_encoder": text_encoder.eval(),
        "tokenizer": tokenizer,
        "processor": processor,
        "transformer": transformer.eval(),
    }
    pipeline = (QwenImageEditPlusPipeline if plus else QwenImageEditPipeline)(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_pipeline(folder: Path, plus: bool = False, **settings: Any) -> Path:
    """Save ``build_tiny_pipeline`` into ``folder`` as a diffusers repository."""
    build_tiny_pipeline(plus, **settings).save_pretrained(folder, safe_serialization=True)
    return folder


def remember_encoded(vae: AutoencoderKLQwenImage) -> None:
    """Encode each image once: at one megapixel this takes most of a tiny run's time."""
    encode, known = vae.encode, {}

    def remembering(image: torch.Tensor) -> Any:
        key = image.dtype, image.float().numpy().tobytes()
        if key not in known:
            known[key] = encode(image)
        return known[key]

    vae.encode = remembering
