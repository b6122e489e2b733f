"""Loading a pipeline from the Hugging Face hub or a local folder, with errors that help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from recast_probe._utils.devices import known_device
from recast_probe._utils.optional import is_installed, missing_package
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.files.input_files import is_folder
from recast_probe.pipelines import Family, family_of_class, refused, supported_pipelines
from recast_probe.pipelines.ip_adapter.loading import IPAdapter
from recast_probe.pipelines.whole_weights import whole_parts

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def _as_dtype(dtype: str | torch.dtype, folder: Path) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return _stored_dtype(folder)
    if dtype not in DTYPES:
        raise InputError(f"dtype={dtype!r} is not known; choose from auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def _stored_dtype(folder: Path) -> torch.dtype:
    """The dtype in which most of the transformer's tensors are stored."""
    names = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    counts: dict[torch.dtype, int] = {}
    for file in sorted((folder / "transformer").glob("*.safetensors")):
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__" and tensor["dtype"] in names:
                dtype = names[tensor["dtype"]]
                counts[dtype] = counts.get(dtype, 0) + 1
    return max(counts, key=lambda dtype: counts[dtype]) if counts else torch.float32


def _unavailable(name: str, error: Exception, family: type[Family] | None = None) -> InputError:
    for package in family.packages if family else ():
        if not is_installed(package) and _is_about(package, error):
            return missing_package(package, f"Loading {name!r}", error)
    if is_folder(name):
        return InputError(
            f"The pipeline in the folder {name!r} could not be loaded "
            f"({type(error).__name__}: {error}); a file of it is missing, damaged, or of another "
            "version of diffusers or transformers."
        )
    return InputError(
        f"{name!r} could not be loaded: {error}\n"
        "It is neither a local folder with a model_index.json nor a complete copy in the Hugging "
        "Face cache, and it could not be downloaded. To get it: accept the licence on "
        f"https://huggingface.co/{name} if the repository is gated, run `hf auth login` while "
        "online, and try again; or download it elsewhere and give the path of the folder. "
        "Probe.pocket() needs no download."
    )


def _is_about(package: str, error: BaseException | None) -> bool:
    """Whether an error, or what caused it, can come from a package that is not there: it names it,
    or something could not be imported or is lacking in a module, as classes that need it are."""
    while error is not None:
        lacking = isinstance(error, AttributeError) and str(error).startswith("module ")
        lacking |= isinstance(error, ValueError) and " has no class " in str(error)
        if lacking or isinstance(error, ImportError) or package in str(error).lower():
            return True
        error = error.__cause__ or error.__context__
    return False


def load_pipeline(
    name: str | Path,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    ip_adapter: str | Path | None = None,
    image_encoder: str | Path | None = None,
    cpu_offload: bool = False,
) -> Any:
    """Load a supported pipeline; safetensors only, and never code from the repository.

    Args:
        name: a repository on the Hugging Face hub or a local folder in the diffusers layout.
        dtype: "auto" (as the transformer is stored), "float32", "bfloat16", "float16" or a torch
            dtype.
        device: where the pipeline is moved to.
        ip_adapter: for a FluxPipeline, the IP-Adapter that is loaded into it: a repository, a
            folder with ip_adapter.safetensors, or a safetensors file.
        image_encoder: its CLIP vision model, a repository or folder; by default
            openai/clip-vit-large-patch14, which the published adapters were trained with.
        cpu_offload: keep every part in the computer's memory but the one that runs, which saves
            memory of the device and costs time; see diffusers' ``enable_model_cpu_offload``.

    Raises:
        InputError: not found, incomplete, gated, offline, an unknown dtype or device, an adapter
            that is missing, or one for a pipeline that takes none; offloading without a device to
            offload from.
        UnsupportedPipelineError: the folder holds another pipeline.
    """
    import diffusers

    target = known_device(device)
    if cpu_offload and target.type == "cpu":
        raise InputError(
            "Parts are offloaded from a device to the CPU, and device='cpu' is the CPU; say "
            "device='cuda', or leave offloading out."
        )
    if not isinstance(dtype, torch.dtype) and dtype != "auto":
        _as_dtype(dtype, Path())
    local = is_folder(name)
    if local and not (Path(name) / "model_index.json").is_file():
        raise InputError(
            f"The folder {str(name)!r} has no model_index.json; give a folder in the diffusers "
            "layout, as save_pretrained writes it."
        )
    try:
        config = diffusers.DiffusionPipeline.load_config(str(name))
    except Exception as error:  # the hub client raises a different class for every cause
        raise _unavailable(str(name), error) from error
    class_name = str(config.get("_class_name"))
    if class_name not in supported_pipelines():
        raise UnsupportedPipelineError(f"{str(name)!r}: {refused(class_name)}")
    adapter = _adapter(class_name, ip_adapter, image_encoder)
    family = family_of_class(class_name)
    assert family is not None
    pipeline_class = family.pipeline_class(class_name)
    try:
        folder = Path(name) if local else Path(pipeline_class.download(name, use_safetensors=True))
        chosen = _as_dtype(dtype, folder)
        pipeline = pipeline_class.from_pretrained(
            folder, dtype=chosen, use_safetensors=True, **whole_parts(folder, chosen)
        )
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{str(name)!r} is there, but a part of it needs a package that is not installed: "
            f"{str(error).strip()}"
        ) from error
    except Exception as error:
        raise _unavailable(str(name), error, family) from error
    if adapter is not None:
        adapter.load_into(pipeline)
    if not cpu_offload:
        return pipeline.to(target)
    pipeline.enable_model_cpu_offload(device=target)
    return pipeline


def _adapter(
    class_name: str, ip_adapter: str | Path | None, image_encoder: str | Path | None
) -> IPAdapter | None:
    """The adapter that was asked for, checked against the pipeline before anything is loaded."""
    family = family_of_class(class_name)
    takes_adapter = family is not None and family.takes_adapter
    if takes_adapter and ip_adapter is None:
        raise InputError(
            f"A {class_name} has no reference tokens until an IP-Adapter is loaded into it; give "
            "ip_adapter, such as 'XLabs-AI/flux-ip-adapter'."
        )
    if not takes_adapter and not (ip_adapter is None and image_encoder is None):
        raise InputError(f"A {class_name} takes no ip_adapter and no image_encoder; leave it out.")
    return None if ip_adapter is None else IPAdapter(ip_adapter, image_encoder)
