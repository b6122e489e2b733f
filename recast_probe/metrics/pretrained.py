"""Weights of metrics, from the Hugging Face hub or a local folder; safetensors and ONNX only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from recast_probe.content.digest import content_digest
from recast_probe.errors import InputError, MissingWeightsError
from recast_probe.pipelines.run_identity import model_fingerprint
from recast_probe.pipelines.whole_weights import load_whole

# files that hold the same: weights in parts, and a processor's settings as newer tools save them
INSTEAD = {
    "model.safetensors": "model.safetensors.index.json",
    "preprocessor_config.json": "processor_config.json",
}


def absent(source: str | Path, files: Sequence[str]) -> list[str]:
    """Those of the files that are neither in the folder `source` nor in the hub's local cache.

    Looks at the disk only. What is there under another usual name is not absent.
    """
    from huggingface_hub import try_to_load_from_cache

    def found(name: str) -> bool:
        if Path(source).is_dir():
            return (Path(source) / name).is_file()
        if not is_repository(source):
            return False
        return isinstance(try_to_load_from_cache(str(source), name), str)

    return [
        name for name in files if not found(name) and not (name in INSTEAD and found(INSTEAD[name]))
    ]


def is_repository(source: str | Path) -> bool:
    """Whether a source could be the name of a repository, "owner/name", and not only a path."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", str(source)) is not None


def how_to_get(name: str, source: str | Path) -> str:
    """What a user does to have the weights of a metric."""
    return (
        f"Be online once, or run `hf download {source} --local-dir FOLDER` elsewhere, bring the "
        f"folder here and name it: metric({name!r}, source=FOLDER), or --metrics {name}=FOLDER."
    )


def load_part(part: Any, name: str, source: str | Path, files: Sequence[str]) -> Any:
    """A transformers model, processor or tokenizer of a metric, from a repository or a folder.

    Args:
        part: its class.
        name: the metric's name, for messages.
        files: what a folder must hold.

    Raises:
        MissingWeightsError: the folder lacks a file, or the repository is out of reach.
        InputError: the files are there, and damaged or of another kind of model.
    """
    try:
        if Path(source).is_dir() and absent(source, files):
            raise FileNotFoundError(str(source))
        if hasattr(part, "config_class"):
            return _load_model(part, name, source)
        return part.from_pretrained(str(source))
    except InputError:
        raise
    except Exception as error:  # the hub client raises a different class for every cause
        raise unavailable(name, source, files, error) from error


def unavailable(
    name: str, source: str | Path, files: Sequence[str], error: Exception
) -> InputError:
    """The error for weights that could not be loaded: what is missing, or what is wrong."""
    missing = absent(source, files)
    if not Path(source).is_dir() and not is_repository(source):
        return MissingWeightsError(
            f"There is no folder {str(source)!r} with the weights of {name}; check the path."
        )
    if missing and Path(source).is_dir():
        return MissingWeightsError(
            f"The folder {str(source)!r} lacks {', '.join(missing)}, which {name} needs. Give a "
            "folder with all files of its repository."
        )
    if missing:
        return MissingWeightsError(
            f"The weights of {name} are missing: {', '.join(missing)} of {source} can neither be "
            f"found in the Hugging Face cache nor downloaded ({str(error).rstrip('.')}). "
            f"{how_to_get(name, source)}"
        )
    return InputError(f"The weights of {name} in {str(source)!r} cannot be used: {error}")


def _load_model(part: Any, name: str, source: str | Path) -> Any:
    """A model with every weight from the file; transformers would fill gaps with random numbers."""
    wanted = part.config_class.model_type
    config, _ = part.config_class.get_config_dict(str(source))
    if config.get("model_type") != wanted:
        raise InputError(
            f"{str(source)!r} holds a model of the kind {config.get('model_type')!r}; {name} needs "
            f"{wanted!r}."
        )
    model = load_whole(part, source)
    return model.float().eval().requires_grad_(False)


def hub_file(name: str, source: str | Path, file: str) -> Path:
    """One file of a metric's repository or folder, downloaded when it is not there.

    Raises:
        MissingWeightsError: it is not there and cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download

    if Path(source).is_dir():
        path = Path(source) / file
        if not path.is_file():
            raise unavailable(name, source, [file], FileNotFoundError(path))
        return path
    try:
        return Path(hf_hub_download(str(source), file))
    except Exception as error:  # the hub client raises a different class for every cause
        raise unavailable(name, source, [file], error) from error


def source_name(source: str | Path) -> str:
    """The repository, or the last part of a folder's path."""
    return Path(source).resolve().name if Path(source).is_dir() else str(source)


def weights_digest(model: Any) -> str:
    """SHA-256 of a model's weights (hexadecimal); see `model_fingerprint`."""
    return model_fingerprint(SimpleNamespace(components={"model": model}))


def model_facts(model: Any) -> dict[str, Any]:
    """Digests of a transformers model: "weights", and "config", which says what they compute."""
    return {"weights": weights_digest(model), "config": content_digest(model.config)}
