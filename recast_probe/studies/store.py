"""A folder that remembers every finished run of a study, and no unfinished one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files.atomic import atomic_path, without_nan, write_json
from recast_probe.files.envelope import digest, file_digest, plain, read_sealed, sealed
from recast_probe.files.locks import held
from recast_probe.files.stray import sweep

Writer = Callable[[Path], object]
OWN_SUFFIXES = (".json", ".lock")
TWICE = "another process that works there may do the same runs"
MISSING = object()
"""In place of a setting that is not there, which is not the same as None."""


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

    def image(self) -> Image.Image:
        """The picture in its .png, in RGB."""
        with Image.open(self.files[".png"]) as opened:
            return opened.convert("RGB")


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
        InputError: no folder can be made there, it holds a study with other settings, its
            `study.json` is damaged, or settings that are not JSON, such as NaN.

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
        self.settings = plain(dict(settings))
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
                with suppress(OSError), held(path, wait=False):
                    pass

    def _check(self, described: Path) -> None:
        try:
            found = read_sealed(described, "Study")
        except DamagedFileError as error:
            raise InputError(
                f"{described} cannot be read ({error}); choose another folder, or remove this one."
            ) from error
        # by digest, as `load` compares: a record of other settings is not there, and is replaced
        if digest(found) != self._study:
            other = differences(found, self.settings)
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
        with held(self._path(key, ".lock"), wait, TWICE) as ours:
            yield ours

    def load(
        self, key: Mapping[str, str], settings: Mapping[str, Any] | None = None
    ) -> Record | None:
        """The record of a run, or None where there is no complete one.

        Args:
            settings: what decides this run beyond the study's settings; None asks for none.

        Raises:
            InputError: the run was made with others.
        """
        try:
            stored = read_sealed(self._path(key, ".json"), "Record")
            if stored["key"] != dict(key) or stored["study"] != self._study:
                return None
            files = {suffix: self._path(key, suffix) for suffix in stored["files"]}
            whole = all(file_digest(files[name]) == stored["files"][name] for name in files)
            record, before = Record(stored["values"], files), stored.get("settings")
        except (DamagedFileError, KeyError, TypeError, AttributeError):
            return None
        if not whole:
            return None
        if settings is not None and (other := differences(before, plain(dict(settings)))):
            name, (was, now) = next(iter(other.items()))
            raise InputError(
                f"The run {dict(key)} in {self.folder} was made with other settings "
                f"({name or 'all'} was {_short(was)}, now {_short(now)}). Give the arm another "
                "name, or choose another folder; the runs there were left as they are."
            )
        return record

    def save(
        self,
        key: Mapping[str, str],
        values: Mapping[str, Any],
        files: Mapping[str, Writer] | None = None,
        provenance: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Record:
        """Write a run's files and then its record.

        Args:
            key: names the run, such as subject, prompt and arm.
            values: what tables are made of.
            files: by suffix, such as ".png", a function that writes to a path.
            provenance: how the run was made.
            settings: what decides this run beyond the study's settings; see `load`.

        Raises:
            InputError: a suffix that is not a plain one, values that are not JSON, or a run of a
                pipeline that was changed since the study began; an earlier record stays.
            OSError: the disk is full; records of other runs stay, and this one is not there.
        """
        for suffix in files or {}:
            if not re.fullmatch(r"\.[a-z0-9]+", suffix) or suffix in OWN_SUFFIXES:
                raise InputError(
                    f"{suffix!r} is no suffix of a run's file: a dot and small letters or digits, "
                    f"such as .png, but none of {', '.join(OWN_SUFFIXES)}."
                )
        self._check_pipeline(provenance or {})
        facts = {
            "key": dict(key),
            "study": self._study,
            "values": plain(without_nan(dict(values))),
            "provenance": plain(without_nan(dict(provenance or {}))),
            "settings": None if settings is None else plain(dict(settings)),
        }
        record = self._path(key, ".json")
        for path in (record, *(self._path(key, suffix) for suffix in files or {})):
            if path.is_dir():
                raise InputError(f"{path} is a folder, and a run is to be stored there; remove it.")
        # an older record would vouch for files that are replaced now
        record.unlink(missing_ok=True)
        digests = {}
        for suffix, write in (files or {}).items():
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


def differences(one: Any, other: Any, name: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two settings differ as JSON: the dotted names of the entries, with both values.

    1, 1.0 and True are three values. What is not there is `MISSING`, which None is not.

    Examples:
        >>> differences({"steps": 1, "seed": 0}, {"steps": 1.0, "seed": 0})
        {'steps': (1, 1.0)}
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in sorted({*one, *other}):
            pair = one.get(key, MISSING), other.get(key, MISSING)
            found |= differences(*pair, f"{name}.{key}" if name else key)
        return found
    return {} if _text(one) == _text(other) else {name: (one, other)}


def _text(value: Any) -> str:
    if value is MISSING:
        return "missing"  # which is no JSON
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=repr)


def _short(value: Any) -> str:
    text = _text(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
