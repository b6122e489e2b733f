"""Models with every weight from their file: libraries fill gaps with random numbers."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from recast_probe.errors import InputError
from recast_probe.files.input_files import parse_json

LIBRARIES = ("diffusers", "transformers")
# beside a diffusers model's weights: names of tensors that are other tensors of the same files
SHARED = "shared_weights.json"


def load_whole(made: Any, source: str | Path, **settings: Any) -> torch.nn.Module:
    """A model of a diffusers or transformers class, from safetensors only.

    Args:
        made: the class.
        source: a folder, or a repository on the hub. Where a folder says in ``SHARED`` that
            modules share their weights, they have one storage.
        settings: of its ``from_pretrained``.

    Raises:
        InputError: weights that the model needs and the files do not have, or that have another
            shape; the message names them. Other failures are the library's own errors.
    """
    if (Path(source) / SHARED).is_file():
        return _load_shared(made, Path(source), settings["dtype"])
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


def _load_shared(made: Any, folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """A diffusers model of which several modules have the same weights, each held once."""
    with (folder / SHARED).open("rb") as file:
        same = parse_json(file.read(1 << 24), str(folder / SHARED))
    if not isinstance(same, dict) or not all(isinstance(each, str) for each in same.values()):
        raise InputError(f"{folder / SHARED} does not say which tensors are which others.")
    with torch.device("meta"):
        model = made.from_config(made.load_config(str(folder)))
    held: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        held |= {name: each.to(dtype) for name, each in load_file(path).items()}
    needed = set(model.state_dict())
    lacking = sorted(name for name in needed if same.get(name, name) not in held)
    if lacking:
        raise InputError(
            f"The weights of {made.__name__} in {str(folder)!r} lack {len(lacking)} tensors that "
            f"it needs, such as {lacking[0]}. Write the folder again."
        )
    state = {name: held[same.get(name, name)] for name in needed}
    model.load_state_dict(state, assign=True)
    return model.eval()


def whole_parts(folder: Path, dtype: torch.dtype) -> dict[str, torch.nn.Module]:
    """All models of a pipeline's folder in the diffusers layout, by the name of their part.

    Raises:
        InputError: see ``load_whole``; also weights that cannot be read, named by their part.
    """
    found = {}
    for name, entry in json.loads((folder / "model_index.json").read_text()).items():
        if not (isinstance(entry, list) and len(entry) == 2):
            continue
        if (library := _library(entry[0])) is None:
            continue
        made = getattr(importlib.import_module(library), str(entry[1]), None)
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


def _library(name: Any) -> str | None:
    """The module that holds a part's class, by its name in model_index.json; None for others.

    Parts that one kind of pipeline has alone are known by that kind: "flux".
    """
    if name in LIBRARIES:
        return str(name)
    if isinstance(name, str) and name.isidentifier():
        kind = f"diffusers.pipelines.{name}"
        return kind if importlib.util.find_spec(kind) is not None else None
    return None
