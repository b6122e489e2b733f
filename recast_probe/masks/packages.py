"""The packages of the `masks` extra."""

from __future__ import annotations

import importlib
from typing import Any

from recast_probe.errors import InputError

PACKAGES = {"onnxruntime": "onnxruntime", "cv2": "opencv-python-headless"}


def needed(module: str) -> Any:
    """A module of the `masks` extra.

    Raises:
        InputError: it is not installed, or cannot be imported; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"Finding masks needs {PACKAGES[module]}, which cannot be imported ({error}). Install "
            "it with `pip install 'recast_probe[masks]'`, or give masks of your own, or a finder "
            "of your own."
        ) from error
