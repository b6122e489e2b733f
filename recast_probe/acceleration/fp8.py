"""Linear layers of the blocks in 8-bit floating point: faster on recent GPUs, and another model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from recast_probe._utils.optional import need
from recast_probe.errors import InputError

LEAST_CAPABILITY = (8, 9)  # Ada and Hopper: the first GPUs that multiply in FP8


def use_fp8_linears(blocks: Sequence[torch.nn.Module]) -> Callable[[], None]:
    """Quantise every linear layer of these blocks with torchao, weights and activations row by row.

    This changes the model: images differ from the full-precision ones. The layers stay the same
    modules and only their weights are exchanged; the original weights wait on the CPU.

    Args:
        blocks: modules on one CUDA device, in bfloat16.

    Returns:
        A function that puts the original weights back.

    Raises:
        MissingPackageError: torchao is missing.
        InputError: the device does not multiply in FP8.
    """
    linears = [
        module
        for block in blocks
        for module in block.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    _check_device(linears)
    quantise = _torchao()
    originals = [(each, each.weight.device, each.weight.detach().cpu()) for each in linears]

    def restore() -> None:
        for module, device, weight in originals:
            module.weight = torch.nn.Parameter(weight.to(device), requires_grad=False)
        originals.clear()

    try:
        for module in linears:
            quantise(module)
    except BaseException:
        restore()
        raise
    return restore


def _check_device(linears: Sequence[torch.nn.Linear]) -> None:
    devices = {each.weight.device for each in linears}
    dtypes = {each.weight.dtype for each in linears}
    device = next(iter(devices), torch.device("cpu"))
    if len(devices) != 1 or device.type != "cuda":
        raise InputError(
            "fp8=True needs the whole transformer on one CUDA device, but it is on "
            f"{', '.join(sorted(map(str, devices)))}; move it there first, without offloading, or "
            "leave fp8 out."
        )
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        raise InputError(
            f"{torch.cuda.get_device_name(device)} does not multiply in FP8 (compute capability "
            f"{capability[0]}.{capability[1]}, but 8.9 is needed: Ada, Hopper or newer); leave "
            "fp8 out."
        )
    if dtypes != {torch.bfloat16}:
        raise InputError(
            f"fp8=True needs weights in bfloat16, not {', '.join(sorted(map(str, dtypes)))}."
        )


def _torchao() -> Callable[[torch.nn.Linear], None]:
    torchao = need("torchao.quantization", "fp8=True")
    config = torchao.Float8DynamicActivationFloat8WeightConfig(granularity=torchao.PerRow())
    return lambda module: torchao.quantize_(module, config)
