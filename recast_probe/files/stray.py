"""Names of temporary files, which tell a later process whether their writer still lives."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

HOUR = 3600.0
_NAME = re.compile(r"\..*\.recast_probe-([0-9a-f]{8})-([0-9]+)-[a-z0-9_]{8}(\..*)?", re.DOTALL)


def temporary_prefix(target: Path) -> str:
    """How the name of a temporary file or folder begins that is to become `target`."""
    # file systems limit names to 255 bytes, and the target may use all of them
    return f".{target.stem[:30]}.recast_probe-{_machine()}-{os.getpid()}-"


def sweep(folder: Path) -> list[Path]:
    """Remove temporary files and folders whose writer is gone; returns what was removed.

    Gone is a process of this machine that has ended, or, where it cannot be asked, one whose file
    did not change for an hour. Files of other programs and of other users stay.
    """
    removed = []
    with suppress(OSError):
        for entry in os.scandir(folder):
            found = _NAME.fullmatch(entry.name)
            if found is not None and _is_stray(entry, found[1], int(found[2])):
                path = Path(entry.path)
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        shutil.rmtree(path)
                    else:
                        path.unlink()
                    removed.append(path)
    return removed


def _is_stray(entry: os.DirEntry[str], machine: str, process: int) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return False
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return False
    # asking by signal 0 would end the process where the system is no POSIX
    if machine == _machine() and os.name == "posix":
        return not _alive(process)
    return time.time() - status.st_mtime > HOUR


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


@cache
def _machine() -> str:
    """The machine since it started, and within it the space that process numbers belong to."""
    facts = [platform.node()]
    with suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:8]
