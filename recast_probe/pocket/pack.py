"""The arrays of a training pack, checked before they are read."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from recast_probe.errors import InputError
from recast_probe.files.input_files import opened

TEXTS = ("key", "name", "style")
MOST_SUBJECTS = 20_000
LONGEST_TEXT = 400  # characters of a name


def read_pack(path: Path, side: int) -> dict[str, np.ndarray]:
    """The arrays of a file that `build_pack` wrote.

    Args:
        side: of a drawing, pixels.

    Returns:
        rgba, uint8 (subjects, side, side, 4); key, name and style, text (subjects,).

    Raises:
        InputError: not there, damaged, or another file.
    """
    with opened(path, "The training pack") as file:
        try:
            return _arrays(file, side)
        # what is damaged makes zipfile and numpy raise nearly anything
        except Exception as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise InputError(
                f"{path} is no training pack, or a damaged one ({reason}); make it again with "
                f"`recast-probe pocket assets --out {path.parent}`."
            ) from error


def _arrays(file: BinaryIO, side: int) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as packed:
        wanted = ["rgba.npy", *(f"{name}.npy" for name in TEXTS)]
        if sorted(packed.namelist()) != sorted(wanted):
            raise InputError(f"it holds {packed.namelist()[:8]}, not {wanted}")
        drawings = _array(packed, "rgba", "u1", (side, side, 4))
        found = {"rgba": drawings} | {name: _array(packed, name, "U", ()) for name in TEXTS}
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"its arrays differ in length: {lengths}")
    return found


def _array(packed: zipfile.ZipFile, name: str, kind: str, each: tuple[int, ...]) -> np.ndarray:
    """An array (subjects, *each) of a kind, as long as its header says."""
    with packed.open(f"{name}.npy") as member:
        shape, by_column, dtype = _header(member)
        count = shape[0] if shape else 0
        fits = dtype.kind == "U" and dtype.itemsize <= 4 * LONGEST_TEXT
        if not (fits if kind == "U" else dtype == np.dtype(kind)) or by_column:
            raise InputError(f"{name} has the type {dtype}")
        if tuple(shape[1:]) != each or not 1 <= count <= MOST_SUBJECTS:
            raise InputError(f"{name} has the shape {shape}")
        size = math.prod(shape) * dtype.itemsize
        # one byte more, so that the archive's own checksum is looked at
        content = member.read(size + 1)
        if len(content) != size:
            raise InputError(f"{name} does not hold what its shape says")
    return np.frombuffer(content, dtype).reshape(shape).copy()


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)
