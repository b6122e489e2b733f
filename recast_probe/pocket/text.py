"""Tokenizers made from the captions: a CLIP byte-pair vocabulary and a T5 sentencepiece model."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer, T5Tokenizer

from recast_probe.files.atomic import atomic_folder
from recast_probe.files.envelope import seal_folder

CLIP_VOCABULARY = 1500
T5_VOCABULARY = 1500
TEXT_TOKENS = 32


def make_tokenizers(captions: list[str], out: Path) -> None:
    """Train both tokenizers and save them as `out/tokenizer` and `out/tokenizer_2`."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "captions.txt").write_text("\n".join(captions))
        for make, name in ((_make_clip, "tokenizer"), (_make_t5, "tokenizer_2")):
            with atomic_folder(out / name) as fresh:
                make(folder, fresh)
                seal_folder(fresh)


def load_tokenizers(folder: Path) -> tuple[CLIPTokenizer, T5Tokenizer]:
    """The tokenizers that `make_tokenizers` saved."""
    return (
        CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        T5Tokenizer.from_pretrained(folder / "tokenizer_2"),
    )


def _make_clip(folder: Path, out: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=CLIP_VOCABULARY,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train([str(folder / "captions.txt")], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = model["vocab"]
    for letter in pre_tokenizers.ByteLevel.alphabet():
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[special] = len(vocabulary)
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    clip = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_TOKENS)
    clip.save_pretrained(out)


def _make_t5(folder: Path, out: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "captions.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=T5_VOCABULARY,
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    source = folder / "t5"
    source.mkdir()
    shutil.copy(folder / "spiece.model", source / "spiece.model")
    t5 = T5Tokenizer.from_pretrained(source, extra_ids=0, model_max_length=TEXT_TOKENS)
    t5.save_pretrained(out)
