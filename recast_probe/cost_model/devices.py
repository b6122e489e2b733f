"""What a device can do at most, from its data sheet: dense tensor FLOP/s and memory bandwidth."""

from __future__ import annotations

from dataclasses import dataclass

from recast_probe.errors import InputError


@dataclass(frozen=True)
class DeviceLimits:
    """Peaks that no kernel exceeds.

    Attributes:
        name: of the device.
        bfloat16: dense FLOP/s of bfloat16 products that are summed in float32, without sparsity.
        float8: dense FLOP/s of 8-bit products; None where the device has none.
        bandwidth: bytes/s of its memory.
        memory: bytes of its memory.
        source: where the numbers stand.

    Examples:
        >>> DEVICES["h200"].bandwidth / 1e12
        4.8
    """

    name: str
    bfloat16: float
    float8: float | None
    bandwidth: float
    memory: float
    source: str


# data sheets that print peaks with sparsity say so in a footnote; dense peaks are half of those
DEVICES = {
    "h200": DeviceLimits(
        "NVIDIA H200 SXM",
        989.4e12,
        1978.9e12,
        4.8e12,
        141e9,
        "NVIDIA H200 Tensor Core GPU data sheet: 1,979 and 3,958 TFLOPS with sparsity, 4.8 TB/s",
    ),
    "h100": DeviceLimits(
        "NVIDIA H100 SXM",
        989.4e12,
        1978.9e12,
        3.35e12,
        80e9,
        "NVIDIA H100 Tensor Core GPU data sheet: 1,979 and 3,958 TFLOPS with sparsity, 3.35 TB/s",
    ),
    "a100": DeviceLimits(
        "NVIDIA A100 SXM 80 GB",
        312e12,
        None,
        2.039e12,
        80e9,
        "NVIDIA A100 Tensor Core GPU data sheet: 312 TFLOPS dense, 2,039 GB/s",
    ),
    "l40s": DeviceLimits(
        "NVIDIA L40S",
        362.05e12,
        733e12,
        0.864e12,
        48e9,
        "NVIDIA L40S data sheet: 362.05 and 733 TFLOPS dense, 864 GB/s",
    ),
    "rtx-4090": DeviceLimits(
        "NVIDIA GeForce RTX 4090",
        165.2e12,
        330.3e12,
        1.008e12,
        24e9,
        "NVIDIA Ada GPU architecture white paper, appendix A: dense, float32 accumulation; "
        "1,008 GB/s",
    ),
}
# what torch.cuda.get_device_name() says of them
_REPORTED = {
    "H200": "h200",
    "H100 80GB HBM3": "h100",
    "A100-SXM4-80GB": "a100",
    "L40S": "l40s",
    "RTX 4090": "rtx-4090",
}


def device_limits(name: str) -> DeviceLimits:
    """A device by its short name.

    Raises:
        InputError: it is not in the table.

    Examples:
        >>> device_limits("a100").name
        'NVIDIA A100 SXM 80 GB'
    """
    if name not in DEVICES:
        raise InputError(
            f"The device table has {', '.join(DEVICES)}, not {name!r}; give its dense peak and its "
            "bandwidth by --peak-tflops and --bandwidth-gb instead."
        )
    return DEVICES[name]


def limits_of(reported: str) -> DeviceLimits | None:
    """The device that CUDA reports under this name; None where the table has none like it.

    Variants with other peaks (PCIe boards, smaller memories) report other names and give None.
    """
    for part, name in _REPORTED.items():
        if part in reported and "NVL" not in reported and "Laptop" not in reported:
            return DEVICES[name]
    return None
