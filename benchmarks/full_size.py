"""FLUX.1 Kontext with random weights at its published size: `python -m benchmarks.full_size OUT`.

Writes a folder in the diffusers layout that every command takes by --model: transformer, T5-XXL,
CLIP-L and autoencoder of the published configs in sharded safetensors, and stand-in tokenizers of
the right classes and numbers of words that split text into letters. Speed and memory do not depend
on the values of weights. About 34 GB; parts are built, saved and let go one after the other, on
the GPU where there is one. --scale divides widths, depths and the image's side, for tests.

--tied lets all double-stream blocks share the weights of one, and all single-stream blocks those of
another; text encoders keep their width and have two layers. Blocks are separate modules, and a step
does the same work, with 3 GB of weights: it runs in 24 GiB of memory.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel
from transformers.models.t5.tokenization_t5 import T5Tokenizer

from benchmarks.readout import fill
from recast_probe._utils.ending import run_program
from recast_probe.cost_model.published_configs import CONFIGS
from recast_probe.files.atomic import write_json
from recast_probe.pipelines.whole_weights import SHARED
from recast_probe.testing.tiny_parts import flux_scheduler

CLIP_WORDS, T5_WORDS, T5_EXTRA = 49_408, 32_000, 100
FEW = 2  # layers of the text encoders beside tied blocks
HEAD = 64  # channels of a head in both text encoders


def main(arguments: Sequence[str] | None = None) -> Path:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=int, default=1, help="divides all sizes")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tied", action="store_true", help="blocks of a kind share their weights")
    parser.add_argument("--shard-size", default="5GB", help="largest file of weights")
    options = parser.parse_args(arguments)
    return write_pipeline(
        options.out,
        options.scale,
        getattr(torch, options.dtype),
        torch.device(options.device),
        options.seed,
        options.shard_size,
        options.tied,
    )


def write_pipeline(
    folder: Path,
    scale: int = 1,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cpu",
    seed: int = 0,
    shard_size: str = "5GB",
    tied: bool = False,
) -> Path:
    """The folder, with every part of the pipeline in it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    text_width, pooled_width = _part(4096, scale, HEAD), _part(768, scale, HEAD)
    parts: dict[str, Callable[[], torch.nn.Module]] = {
        "transformer": lambda: FluxTransformer2DModel.from_config(
            transformer_config(scale, text_width, pooled_width)
        ),
        "text_encoder": lambda: CLIPTextModel(clip_config(scale, pooled_width)),
        "text_encoder_2": lambda: T5EncoderModel(t5_config(scale, text_width)),
        "vae": lambda: AutoencoderKL(**autoencoder_config(scale)),
    }
    if tied:
        parts |= {
            "text_encoder": lambda: CLIPTextModel(clip_config(scale, pooled_width, FEW)),
            "text_encoder_2": lambda: T5EncoderModel(t5_config(scale, text_width, FEW)),
        }
        del parts["transformer"]
        write_tied(
            folder / "transformer", transformer_config(scale, text_width, pooled_width), dtype
        )
    for name, build in parts.items():
        model = _random(build, dtype, device)
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
        model.save_pretrained(folder / name, max_shard_size=shard_size)
        del model
        gc.collect()
    clip_tokenizer().save_pretrained(folder / "tokenizer")
    t5_tokenizer(max(16, 512 // scale)).save_pretrained(folder / "tokenizer_2")
    flux_scheduler().save_pretrained(folder / "scheduler")
    write_json(folder / "model_index.json", model_index())
    return folder


def write_tied(folder: Path, config: dict[str, Any], dtype: torch.dtype) -> None:
    """A transformer whose blocks of a kind are one block in the file."""
    once = config | {"num_layers": 1, "num_single_layers": 1}
    model = _random(lambda: FluxTransformer2DModel.from_config(once), dtype, "cpu")
    model.save_pretrained(folder)
    with torch.device("meta"):
        whole = FluxTransformer2DModel.from_config(config)
    whole.save_config(folder)
    held = set(model.state_dict())
    same = {
        name: re.sub(r"^((single_)?transformer_blocks)\.\d+\.", r"\1.0.", name)
        for name in whole.state_dict()
        if name not in held
    }
    write_json(folder / SHARED, same)
    print(
        f"transformer: {sum(p.numel() for p in whole.parameters()):,} parameters, of which "
        f"{sum(p.numel() for p in model.parameters()):,} are held",
        flush=True,
    )


def transformer_config(scale: int, text_width: int, pooled_width: int) -> dict[str, Any]:
    """FLUX.1 Kontext dev's, divided; heads keep their width."""
    config = json.loads((CONFIGS / "flux_kontext_dev.json").read_text())
    for name in ("num_layers", "num_single_layers", "num_attention_heads"):
        config[name] = max(1, config[name] // scale)
    return config | {"joint_attention_dim": text_width, "pooled_projection_dim": pooled_width}


def clip_config(scale: int, width: int, layers: int = 12) -> CLIPTextConfig:
    """The text part of CLIP ViT-L/14."""
    return CLIPTextConfig(
        vocab_size=CLIP_WORDS,
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=max(1, layers // scale),
        num_attention_heads=width // HEAD,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,  # as published: the last word is then the one of the largest number
    )


def t5_config(scale: int, width: int, layers: int = 24) -> T5Config:
    """T5 v1.1 XXL."""
    return T5Config(
        vocab_size=32_128,
        d_model=width,
        d_kv=HEAD,
        d_ff=width * 5 // 2,
        num_layers=max(1, layers // scale),
        num_heads=width // HEAD,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )


def autoencoder_config(scale: int) -> dict[str, Any]:
    """FLUX.1's autoencoder: 16 channels, 8 pixels to a latent position."""
    channels = tuple(_part(each, scale, 8) for each in (128, 256, 512, 512))
    return {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": channels,
        "layers_per_block": 2 if scale == 1 else 1,
        "latent_channels": 16,
        "norm_num_groups": 32 if scale == 1 else 8,
        "sample_size": max(64, 1024 // scale),
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": True,
        "force_upcast": True,
    }


def clip_tokenizer() -> CLIPTokenizer:
    """As many words as CLIP has; letters stand at the front and the end of the text at the end."""
    letters = list(string.ascii_lowercase + string.digits + string.punctuation)
    known = [*letters, *(f"{letter}</w>" for letter in letters)]
    known += [f"word{index}</w>" for index in range(CLIP_WORDS - 2 - len(known))]
    words = [*known, "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77
    )


def t5_tokenizer(longest: int) -> T5Tokenizer:
    """As many pieces as T5 has, of which letters are used."""
    pieces = ["\u2581", *string.ascii_letters, *string.digits, *string.punctuation]
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -2.0) for piece in pieces)]
    words += [(f"\u2581piece{index}", -9.0) for index in range(T5_WORDS - len(words))]
    return T5Tokenizer(vocab=words, extra_ids=T5_EXTRA, model_max_length=longest)


def model_index() -> dict[str, Any]:
    """Which class every part has."""
    return {
        "_class_name": "FluxKontextPipeline",
        "_diffusers_version": diffusers.__version__,
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", T5Tokenizer.__name__],
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }


def _random(
    build: Callable[[], torch.nn.Module], dtype: torch.dtype, device: torch.device | str
) -> Any:
    """A part with random weights, made where it lies and only once."""
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            model = build()
    finally:
        torch.set_default_dtype(usual)
    model = model.to_empty(device=device).eval()
    if hasattr(model, "tie_weights"):
        model.tie_weights()  # memory of their own parted them
    fill(model)
    return model


def _part(width: int, scale: int, multiple: int) -> int:
    """A width divided, still a multiple."""
    return max(multiple, width // scale // multiple * multiple)


if __name__ == "__main__":
    run_program(main, "full_size")
