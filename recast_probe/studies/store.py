"""A folder that remembers every finished run of a study, and no unfinished one."""

from __future__ import annotations

import errno
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files.atomic import atomic_path, without_nan, write_json
from recast_probe.files.envelope import digest, file_digest, plain, read_sealed, sealed
from recast_probe.files.stray import sweep

Writer = Callable[[Path], object]
# file systems that know no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@dataclass(frozen=True)
class Record:
    """What one run left.

    Attributes:
        values: numbers and texts, ready for JSON; None for NaN.
        files: by suffix, where they lie.

    Examples:
        >>> Record({"dinov2": 0.8}).files
        {}
    """

    values: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)


class Store:
    """Records of one study, in a folder of its own.

    A record is written last. It holds the SHA-256 of its files, of its own contents and of the
    settings, so it vouches for all of them: a run that was cut short, or of which anything was
    changed, is simply not there and is made again.

    Args:
        folder: made if it is not there. What killed processes left in it is removed.
        settings: everything that decides the outcome of the runs: model fingerprint, versions,
            steps, seeds. Records of other settings are never mixed in.

    Raises:
        InputError: no folder can be made there, it holds a study with other settings, or
            `study.json` is damaged.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     store = Store(place, {"steps": 28})
        ...     store.save({"subject": "fox", "arm": "full"}, {"dinov2": 0.8}).values
        ...     store.load({"subject": "hen", "arm": "full"}) is None
        {'dinov2': 0.8}
        True
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings = plain(without_nan(dict(settings)))
        self._study = digest(self.settings)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be made: {error.strerror}.") from error
        self._sweep()
        described = self.folder / "study.json"
        if not described.exists():
            with self.claim({"study": ""}, wait=True):
                if not described.exists():
                    write_json(described, sealed(self.settings, "Study"))
        self._check(described)

    def _sweep(self) -> None:
        sweep(self.folder)
        for path in self.folder.glob("*.lock"):
            # a process that was killed let go of its claim, but the file stays
            if re.fullmatch(r".*-[0-9a-f]{10}\.lock", path.name):
                with suppress(OSError), _held(path, wait=False):
                    pass

    def _check(self, described: Path) -> None:
        try:
            found = read_sealed(described, "Study")
        except DamagedFileError as error:
            raise InputError(
                f"{described} cannot be read ({error}); choose another folder, or remove this one."
            ) from error
        if other := differences(found, self.settings):
            name, (before, now) = next(iter(other.items()))
            raise InputError(
                f"The folder {self.folder} holds runs with other settings: {', '.join(other)} "
                f"({name} was {_short(before)}, now {_short(now)}). "
                "Choose another folder; the runs there were left as they are."
            )

    @contextmanager
    def claim(self, key: Mapping[str, str], wait: bool = False) -> Iterator[bool]:
        """Keep others from doing the same work; gives False where another holds it.

        Others are processes, and threads of this one. The operating system frees the claim of a
        process that ends, however it ends. It holds between processes of one machine; on a network
        file system between machines as far as the file system's locks (flock) do. Where there are
        no locks everyone gets the claim, with a warning: work may then be done twice, and nothing
        worse.

        Args:
            key: names the work.
            wait: until it is free.
        """
        with _held(self._path(key, ".lock"), wait) as ours:
            yield ours

    def load(self, key: Mapping[str, str]) -> Record | None:
        """The record of a run, or None where there is no complete one."""
        try:
            stored = read_sealed(self._path(key, ".json"), "Record")
            if stored["key"] != dict(key) or stored["study"] != self._study:
                return None
            files = {suffix: self._path(key, suffix) for suffix in stored["files"]}
            whole = all(file_digest(files[name]) == stored["files"][name] for name in files)
            return Record(stored["values"], files) if whole else None
        except (DamagedFileError, KeyError, TypeError, AttributeError):
            return None

    def save(
        self,
        key: Mapping[str, str],
        values: Mapping[str, Any],
        files: Mapping[str, Writer] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Record:
        """Write a run's files and then its record.

        Args:
            key: names the run, such as subject, prompt and arm.
            values: what tables are made of.
            files: by suffix, such as ".png", a function that writes to a path.
            provenance: how the run was made.

        Raises:
            InputError: a suffix that is not a plain one, values that are not JSON, or a run of a
                pipeline that was changed since the study began.
            OSError: the disk is full; earlier records stay.
        """
        self._check_pipeline(provenance or {})
        facts = {
            "key": dict(key),
            "study": self._study,
            "values": plain(without_nan(dict(values))),
            "provenance": plain(without_nan(dict(provenance or {}))),
        }
        record = self._path(key, ".json")
        for path in (record, *(self._path(key, suffix) for suffix in files or {})):
            if path.is_dir():
                raise InputError(f"{path} is a folder, and a run is to be stored there; remove it.")
        # an older record would vouch for files that are replaced now
        record.unlink(missing_ok=True)
        digests = {}
        for suffix, write in (files or {}).items():
            if not re.fullmatch(r"\.[a-z0-9]+", suffix) or suffix == ".json":
                raise InputError(f"{suffix!r} is no suffix of a run's file.")
            path = self._path(key, suffix)
            with atomic_path(path) as temporary:
                write(temporary)
            digests[suffix] = file_digest(path)
        write_json(record, sealed({**facts, "files": digests}, "Record"))
        return Record(facts["values"], {suffix: self._path(key, suffix) for suffix in digests})

    def _check_pipeline(self, provenance: Mapping[str, Any]) -> None:
        """Refuse a run whose pipeline no longer is the one of the settings."""
        found = plain(dict(provenance.get("model") or {}).get("identity") or {})
        begun = {name: each for name, each in self.settings.items() if name in found}
        changed = differences({name: found[name] for name in begun}, begun)
        if changed:
            raise InputError(
                f"The pipeline was changed while the study ran ({', '.join(changed)}), so this run "
                f"does not belong to the others in {self.folder} and was not stored. Put it back, "
                "or choose another folder."
            )

    def _path(self, key: Mapping[str, str], suffix: str) -> Path:
        """Readable, and safe whatever the key holds; a digest keeps like names apart."""
        readable = "-".join(re.sub(r"[^A-Za-z0-9]+", "-", part).strip("-") for part in key.values())
        return self.folder / f"{readable[:80]}-{digest(plain(dict(key)))[:10]}{suffix}"


@contextmanager
def _held(path: Path, wait: bool) -> Iterator[bool]:
    """Whether that file's lock could be had; the file stays as long as someone holds it."""
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
            f"{path.parent} lies on a file system without locks ({error.strerror}); another "
            "process that works there may do the same runs.",
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


def differences(one: Any, other: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two settings differ: the dotted names of the entries, with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in sorted({*one, *other}):
            found |= differences(one.get(key), other.get(key), f"{name}.{key}" if name else key)
        return found
    return {} if one == other else {name: (one, other)}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
