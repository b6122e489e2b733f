"""Tiny random FLUX.2 and FLUX.2 klein pipelines in the diffusers layout, built from configs.

Every part is of the same class as in the real models, only smaller: 2 double-stream and 3
single-stream blocks, 2 heads, 64 x 64 pixels (4 x 4 tokens for a square image). The text encoders
have as many layers as the pipelines read from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinInpaintPipeline,
    Flux2KleinKVPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
)
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import ByteLevel, Split
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from recast_probe.testing import tiny
from recast_probe.testing.tiny_parts import strengthen

TEXT_WIDTH = 8
TEXT_TOKENS = {"flux2": 48, "klein": 40}
PROMPT_WORDS = ["a", "red", "fox", "on", "the", "beach", "snow", "blurry"]
MISTRAL_TEMPLATE = (
    "<s>{% for m in messages %}"
    "{% if m['role'] == 'system' %}[SYSTEM_PROMPT]{{ m['content'][0]['text'] }}[/SYSTEM_PROMPT]"
    "{% else %}[INST]{{ m['content'][0]['text'] }}[/INST]{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} on{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant <think></think>{% endif %}"
)


def _word_tokenizer(special: list[str], extra: list[str]) -> Tokenizer:
    words = list(dict.fromkeys([*special, *PROMPT_WORDS, *extra]))
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(r"\s+"), "removed")
    return tokenizer


def _mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Words as tokens, with the pipeline's own system message among them.

    FLUX.2 has a ``PixtralProcessor``, which hands its calls on to such a tokenizer; transformers
    makes none without torchvision.
    """
    special = ["<unk>", "<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[IMG]"]
    special += ["[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
    return PreTrainedTokenizerFast(
        tokenizer_object=_word_tokenizer(special, SYSTEM_MESSAGE.split()),
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[4:],
        padding_side="left",
        model_max_length=TEXT_TOKENS["flux2"],
        chat_template=MISTRAL_TEMPLATE,
    )


def _qwen_tokenizer() -> Qwen2TokenizerFast:
    """Letters as tokens, as a byte-level vocabulary without merges has them."""
    letters = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()))}
    tokenizer = Qwen2TokenizerFast(
        vocab=letters,
        merges=[],
        additional_special_tokens=["<|im_start|>", "<|im_end|>", "<think>", "</think>"],
        model_max_length=TEXT_TOKENS["klein"],
    )
    tokenizer.chat_template = QWEN_TEMPLATE
    return tokenizer


def _text_sizes(layers: int) -> dict[str, Any]:
    return {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 8,
        "num_hidden_layers": layers,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": TEXT_WIDTH,
        "max_position_embeddings": 512,
    }


def _mistral(vocabulary: int) -> Mistral3ForConditionalGeneration:
    text = {"model_type": "mistral", "vocab_size": vocabulary, **_text_sizes(30)}
    vision = {
        "model_type": "pixtral",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 32,
        "patch_size": 4,
    }
    return Mistral3ForConditionalGeneration(
        Mistral3Config(text_config=text, vision_config=vision, image_token_index=6)
    )


def transformer_config(guidance_embeds: bool = True) -> dict[str, Any]:
    """Sizes of the tiny transformer."""
    return {
        "in_channels": 16,
        "num_layers": tiny.DOUBLE_BLOCKS,
        "num_single_layers": tiny.SINGLE_BLOCKS,
        "attention_head_dim": tiny.HEAD_DIMENSION,
        "num_attention_heads": tiny.HEADS,
        "joint_attention_dim": 3 * TEXT_WIDTH,
        "timestep_guidance_channels": 32,
        "axes_dims_rope": (4, 4, 4, 4),
        "guidance_embeds": guidance_embeds,
    }


def _shared(guidance_embeds: bool) -> dict[str, Any]:
    vae = AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=tiny.SIZE,
        mid_block_add_attention=False,
    )
    # statistics that are not those of a fresh layer
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2)
    transformer = Flux2Transformer2DModel(**transformer_config(guidance_embeds))
    strengthen(transformer)
    return {
        "vae": vae.eval(),
        "transformer": transformer.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    }


def build_flux2(seed: int = 0) -> Flux2Pipeline:
    """A random pipeline on the CPU in float32; the same seed gives the same weights.

    Examples:
        >>> type(build_flux2()).__name__
        'Flux2Pipeline'
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _mistral_tokenizer()
        return Flux2Pipeline(
            tokenizer=tokenizer,
            text_encoder=_mistral(len(tokenizer)).eval(),
            **_shared(guidance_embeds=True),
        )


def build_klein(seed: int = 0, is_distilled: bool = False) -> Flux2KleinPipeline:
    """The same for klein, whose transformer embeds no guidance.

    Examples:
        >>> build_klein(is_distilled=True).config.is_distilled
        True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = _qwen_tokenizer()
        sizes = _text_sizes(28)
        return Flux2KleinPipeline(
            tokenizer=tokenizer,
            text_encoder=Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **sizes)).eval(),
            is_distilled=is_distilled,
            **_shared(guidance_embeds=False),
        )


def build_klein_kv(seed: int = 0) -> Flux2KleinKVPipeline:
    """Klein with a cache of its references.

    Examples:
        >>> type(build_klein_kv()).__name__
        'Flux2KleinKVPipeline'
    """
    return Flux2KleinKVPipeline(**build_klein(seed).components)


def build_klein_inpaint(seed: int = 0, is_distilled: bool = False) -> Flux2KleinInpaintPipeline:
    """``build_klein(seed)`` as the pipeline that repaints a part of an image.

    Examples:
        >>> build_klein_inpaint().config.is_distilled
        False
    """
    parts = build_klein(seed).components
    return Flux2KleinInpaintPipeline(**parts, is_distilled=is_distilled)


def save_all(folder: Path) -> dict[str, Path]:
    """Save the pipelines below ``folder``: "flux2", "klein" and "distilled" klein."""
    pipelines = {
        "flux2": build_flux2(),
        "klein": build_klein(),
        "distilled": build_klein(is_distilled=True),
    }
    for name, pipeline in pipelines.items():
        pipeline.save_pretrained(folder / name, safe_serialization=True)
    return {name: folder / name for name in pipelines}
