"""Python files of the user's own that are run before a study, to register what it shall know."""

from __future__ import annotations

import runpy
from pathlib import Path

from recast_probe.errors import InputError, RecastProbeError
from recast_probe.files.input_files import is_file

_RUN: set[tuple[Path, bytes]] = set()


def run_plugin(path: Path) -> None:
    """Run a Python file, such as one that calls `register_metric`; once in a process.

    Raises:
        InputError: there is none, or it ends with an error.
    """
    if not is_file(path):
        raise InputError(f"--plugin {str(path)[:300]} is no file.")
    key = path.resolve(), path.read_bytes()
    if key in _RUN:
        return
    try:
        runpy.run_path(str(path), run_name=path.stem)
    except RecastProbeError:
        raise
    except Exception as error:
        raise InputError(
            f"--plugin {path} ended with an error: {type(error).__name__}: {error}."
        ) from error
    _RUN.add(key)
