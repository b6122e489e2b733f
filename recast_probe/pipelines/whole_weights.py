"""Models with every weight from their file: libraries fill gaps with random numbers."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from recast_probe.errors import InputError

LIBRARIES = ("diffusers", "transformers")


def load_whole(made: Any, source: str | Path, **settings: Any) -> torch.nn.Module:
    """A model of a diffusers or transformers class, from safetensors only.

    Args:
        made: the class.
        source: a folder, or a repository on the hub.
        settings: of its ``from_pretrained``.

    Raises:
        InputError: weights that the model needs and the files do not have, or that have another
            shape; the message names them. Other failures are the library's own errors.
    """
    model, facts = made.from_pretrained(
        str(source), use_safetensors=True, output_loading_info=True, **settings
    )
    missing = sorted(facts.get("missing_keys", ()))
    other = sorted(str(each) for each in facts.get("mismatched_keys", ()))
    if gaps := missing + other:
        foreign = sorted(facts.get("unexpected_keys", ()))
        instead = f" (there is {foreign[0]}, which it does not know)" if foreign else ""
        raise InputError(
            f"The weights of {made.__name__} in {str(source)!r} lack {len(gaps)} tensors that it "
            f"needs, such as {gaps[0]}{instead}; they would be random numbers. The file is "
            "damaged, cut short or of another model: copy or download it again."
        )
    return model


def whole_parts(folder: Path, dtype: torch.dtype) -> dict[str, torch.nn.Module]:
    """All models of a pipeline's folder in the diffusers layout, by the name of their part.

    Raises:
        InputError: see ``load_whole``; also weights that cannot be read, named by their part.
    """
    found = {}
    for name, entry in json.loads((folder / "model_index.json").read_text()).items():
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in LIBRARIES):
            continue
        made = getattr(importlib.import_module(entry[0]), str(entry[1]), None)
        if not (isinstance(made, type) and issubclass(made, torch.nn.Module)):
            continue
        try:
            found[name] = load_whole(made, folder / name, dtype=dtype)
        except (InputError, ImportError):
            raise
        except Exception as error:  # a damaged file makes its reader raise nearly anything
            raise InputError(
                f"The part {name} in {str(folder / name)!r} cannot be read: {error}. Copy or "
                "download it again."
            ) from error
    return found
