"""What a command is given, read and checked before a model is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recast_probe.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from recast_probe.pocket import Sample
    from recast_probe.profiles.profile import AttentionProfile

SAMPLE = "sample:"


def sample_named(path: Path) -> Sample | None:
    """The shipped sample that "sample:waffle" or "sample:03-waffle" names; None for another path.

    Raises:
        InputError: there is no such sample.
    """
    if not str(path).startswith(SAMPLE):
        return None
    from recast_probe.pocket import samples

    wanted = str(path).removeprefix(SAMPLE).strip().lower()
    for each in samples():
        if wanted in (each.name, each.name.partition("-")[2], each.subject):
            return each
    known = ", ".join(sample_names())
    raise InputError(f"There is no shipped sample {wanted[:60]!r}; there is {known}.")


def sample_names() -> list[str]:
    """What stands behind "sample:"."""
    from recast_probe.pocket import samples

    return [each.name.partition("-")[2] for each in samples()]


def read_image(path: Path, *, alpha: bool = False) -> Image.Image:
    """A file's picture, or that of a shipped sample; see `images.loading.load_image`."""
    from recast_probe.images.loading import load_image

    sample = sample_named(path)
    return load_image(path if sample is None else sample.image, alpha=alpha)


def mask_source(path: Path) -> Any:
    """A mask's file, or the true mask of a shipped sample."""
    sample = sample_named(path)
    return path if sample is None else sample.mask


def read_mask_of(picture: Image.Image, path: Path | None, inside: str | None) -> np.ndarray | None:
    """A mask, checked against its picture; see `images.loading.load_mask_of`."""
    from recast_probe.images.loading import load_mask_of

    return None if path is None else load_mask_of(picture, mask_source(path), inside)


def references(images: Sequence[Path], mask: Path | None) -> Any:
    """The reference pictures: one, or a list.

    Raises:
        InputError: one that cannot be read, or several and a mask.
    """
    check_mask_of(images, mask)
    pictures = [read_image(each, alpha=True) for each in images]
    return pictures if len(pictures) > 1 else pictures[0]


def check_same_picture(what: str, picture: Image.Image, profile: AttentionProfile) -> None:
    """Refuse a picture that the profile's run did not have as its reference.

    A profile whose provenance does not tell is taken.

    Raises:
        InputError: its run had another one.
    """
    from PIL import Image

    from recast_probe.images.loading import image_digest

    given = profile.provenance.get("images") or [profile.provenance.get("image")]
    known = [each for each in given if isinstance(each, dict) and "sha256" in each]
    for facts in known:
        scaled = facts.get("scaled_by_the_probe_from")
        shown = picture
        if scaled is not None and tuple(scaled) == picture.size:
            size = facts["width"], facts["height"]
            shown = picture.resize(size, Image.Resampling.LANCZOS)
        if image_digest(shown) == facts["sha256"]:
            return
    if known:
        raise InputError(
            f"{what} is not the picture that the profile was made with: its pixels are others. "
            "Give that one, or leave it out."
        )


def check_blocks(blocks: Any, model: str, adapter: bool) -> None:
    """Check a choice of blocks as far as the model's config is at hand, without loading anything.

    Raises:
        InputError: blocks that the model does not have.
    """
    from recast_probe.blocks import select_blocks

    kinds = _block_kinds(model)
    if kinds is not None:
        select_blocks(blocks, [kind for kind in kinds if kind == "double" or not adapter])


def _block_kinds(model: str) -> list[str] | None:
    """Kinds of the blocks of FLUX-like transformers; None where only the loaded model tells."""
    if model == "pocket":
        from recast_probe.pocket import folder

        model = str(folder())
    file = Path(model) / "transformer" / "config.json"
    if not file.is_file() and re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "transformer/config.json")
        file = Path(cached) if isinstance(cached, str) else file
    try:
        config = json.loads(file.read_text())
        double, single = config["num_layers"], config["num_single_layers"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not all(isinstance(count, int) and 0 <= count < 10_000 for count in (double, single)):
        return None
    return ["double"] * double + ["single"] * single


def check_steps(chosen: list[int] | None, steps: int) -> None:
    """Check that the steps to record are among those that run.

    Raises:
        InputError: one is not.
    """
    from recast_probe._utils.checks import check_indices

    check_indices("--profile-steps", chosen, steps, of="steps")


def check_mask_of(images: Sequence[Path], mask: Path | None) -> None:
    """Check that a mask can be told to belong to one reference.

    Raises:
        InputError: there are several.
    """
    if mask is not None and len(images) > 1:
        raise InputError(
            f"--mask is drawn on one reference, but {len(images)} images are given; leave it out, "
            "and compare the output with one of them by `recast-probe score`."
        )


def repainted(mask_image: Path | None, inside: str | None) -> dict[str, Any]:
    """The pipeline's argument for --mask-image, read before a model is; empty where there is none.

    Args:
        inside: of --mask-inside, which holds for every mask.

    Raises:
        InputError: a file that cannot be read, or that does not say what is inside.
    """
    from recast_probe.images.loading import read_mask

    if mask_image is None:
        return {}
    return {"mask_image": read_mask(mask_source(mask_image), inside)}


def output_size(
    height: int | None, width: int | None, num_frames: int | None, frame_index: list[int] | None
) -> dict[str, Any]:
    """The pipeline's arguments for these options, those that are given."""
    index: Any = frame_index[0] if frame_index and len(frame_index) == 1 else frame_index
    given = {"height": height, "width": width, "num_frames": num_frames, "frame_index": index}
    return {name: value for name, value in given.items() if value not in (None, [])}


def parse_blocks(text: str) -> Any:
    """ "single", or a list for "2,5,single.0".

    Raises:
        InputError: nothing in it.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError("--blocks is empty; say all, double, single, paper, or name blocks.")
    chosen = [int(part) if part.isascii() and part.isdecimal() else part for part in parts]
    return chosen[0] if len(chosen) == 1 else chosen


def parse_steps(text: str) -> list[int] | None:
    """[0, 13, 27] for "0,13,27"; None for nothing.

    Raises:
        InputError: something that is no index.
    """
    named = [part.strip() for part in text.split(",") if part.strip()]
    if not all(re.fullmatch("[0-9]{1,9}", part) for part in named):
        raise InputError(f"--profile-steps takes indices such as 0,13,27, not {text[:60]!r}.")
    return [int(part) for part in named] or None
