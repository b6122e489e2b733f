"""The model that a command names: checked by name first, loaded when all else is known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recast_probe.commands.output import note
from recast_probe.errors import InputError
from recast_probe.files.input_files import is_folder

if TYPE_CHECKING:
    from recast_probe.cost_model import TransformerConfig
    from recast_probe.probe import Probe

TINY = "tiny:"


def open_probe(
    model: str,
    dtype: str = "auto",
    device: str = "cpu",
    ip_adapter: str | Path | None = None,
    image_encoder: str | Path | None = None,
    cpu_offload: bool = False,
) -> Probe:
    """The probe of a model named on a command line; heavy imports happen here.

    Raises:
        InputError: the model cannot be had so, or is the bundled or a tiny one with a setting that
            it does not have.
        UnsupportedPipelineError: it is another kind of pipeline.
    """
    check_model(model, dtype, device, ip_adapter, image_encoder, cpu_offload)
    from recast_probe.probe import Probe

    if model.startswith(TINY):
        return Probe.tiny(model.removeprefix(TINY))
    if model == "pocket":
        return Probe.pocket(ip_adapter=ip_adapter is not None)
    return Probe.from_pretrained(
        model,
        dtype,
        device,
        cpu_offload=cpu_offload,
        ip_adapter=ip_adapter,
        image_encoder=image_encoder,
    )


def check_model(
    model: str,
    dtype: str = "auto",
    device: str = "cpu",
    ip_adapter: str | Path | None = None,
    image_encoder: str | Path | None = None,
    cpu_offload: bool = False,
) -> None:
    """What can be told of a model and its settings without loading it.

    Raises:
        InputError: as `open_probe`.
    """
    is_tiny = model.startswith(TINY)
    if not is_tiny and model != "pocket":
        _check_name(model)
        if device != "cpu":
            from recast_probe._utils.devices import known_device

            known_device(device)
        return
    name = f"The model {model}" if is_tiny else "The bundled model"
    if cpu_offload:
        raise InputError(f"{name} runs on the CPU; leave --cpu-offload out.")
    if device != "cpu":
        raise InputError(f"{name} runs on the CPU; leave --device out, which is {device!r}.")
    if dtype not in ("auto", "float32"):
        raise InputError(f"{name} computes in float32; leave --dtype out, which is {dtype!r}.")
    if is_tiny and (ip_adapter or image_encoder):
        raise InputError(f"{name} takes no IP-Adapter by option; name a FluxPipeline with --model.")
    if ip_adapter not in (None, "pocket") or image_encoder:
        raise InputError(
            "The bundled model has one IP-Adapter, --ip-adapter pocket, with an image encoder "
            f"of its own, and takes no other; got {str(image_encoder or ip_adapter)!r}. Name a "
            "FluxPipeline with --model."
        )


def _check_name(model: str) -> None:
    """Refuse what is neither a pipeline's folder nor can be a repository."""
    if is_folder(model) and not (Path(model) / "model_index.json").is_file():
        raise InputError(
            f"The folder {model!r} has no model_index.json; give a folder in the diffusers "
            "layout, as save_pretrained writes it."
        )
    _check_repository(model)


def _check_repository(model: str) -> None:
    """Refuse what would be looked for on the hub and cannot be there, which takes half a minute."""
    if not is_folder(model) and not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        raise InputError(
            f"There is no folder {model[:200]!r}, and a repository is named OWNER/NAME. "
            "`pocket` is the bundled model, and tiny:flux2-klein one with random weights; "
            "`recast-probe doctor` lists them."
        )


@contextmanager
def memory_noted(probe: Probe, device: str) -> Iterator[None]:
    """Note the peak memory of each stage of what runs inside, once a stage, the largest of all."""
    from recast_probe._utils.memory import memory_by_stage

    peaks: dict[str, tuple[int, str]] = {}

    def tell(stage: str, peak: int, kind: str) -> None:
        peaks[stage] = max(peaks.get(stage, (0, kind)), (peak, kind))

    with memory_by_stage(probe.pipe, device, tell):
        yield
    if peaks:
        (kind, *_) = (kind for _, kind in peaks.values())
        said = [f"{stage} {peak / 2**30:.2f}" for stage, (peak, _) in peaks.items()]
        note(f"Peak {kind} memory in GiB: {', '.join(said)}.")


def transformer_config(model: str) -> TransformerConfig:
    """The transformer's config of a published model by name, "pocket", "tiny:FAMILY", a folder
    or a hub repository.

    No weights are read; a tiny model is built.

    Raises:
        InputError: there is none, or of another class.
    """
    from recast_probe.cost_model import PUBLISHED, config_from_dict, config_of, published_config

    if model in PUBLISHED:
        return published_config(model)
    if model == "pocket":
        from recast_probe import pocket

        model = str(pocket.folder())
    if model.startswith(TINY):
        return config_of(open_probe(model).family.transformer)
    _check_repository(model)
    import diffusers

    try:
        # of any class; it only names the file
        config = diffusers.FluxTransformer2DModel.load_config(model, subfolder="transformer")
    except Exception as error:  # the hub client raises a different class for every cause
        raise InputError(
            f"No transformer config was found in {model!r} ({error}). Give a folder in the "
            "diffusers layout, or a repository that can be reached."
        ) from error
    return config_from_dict(config)
