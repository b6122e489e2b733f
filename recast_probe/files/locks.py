"""Locks of the operating system on files, which a process that ends lets go of."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

# file systems that know no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def held(
    path: Path, wait: bool, risk: str = "another process may write there at once"
) -> Iterator[bool]:
    """Whether that file's lock could be had; the file stays as long as someone holds it.

    It keeps out other processes, and other threads of this one. Where there are no locks everyone
    gets it, with a warning.

    Args:
        wait: until it is free.
        risk: what may happen without locks, for the warning.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     path = Path(place) / "a.lock"
        ...     with held(path, wait=True) as ours, held(path, wait=False) as theirs:
        ...         print(ours, theirs)
        True False
    """
    # without locks of the system a mere marker would outlive a killed process
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        ours = False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"{path.parent} lies on a file system without locks ({error.strerror}); {risk}.",
            stacklevel=4,
        )
        ours = True
    else:
        ours = True
    try:
        yield ours
    finally:
        if lock.is_locked:
            # before the lock is released, so that no new lock of another process is removed
            with suppress(OSError):
                path.unlink()
            lock.release()
