"""A folder that remembers every finished run of a study, and no unfinished one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recast_probe.errors import InputError
from recast_probe.io import atomic_path, without_nan, write_json

Writer = Callable[[Path], object]


@dataclass(frozen=True)
class Record:
    """What one run left.

    Attributes:
        values: numbers and texts, ready for JSON; None for NaN.
        files: by suffix, where they lie.
    """

    values: dict[str, Any]
    files: dict[str, Path] = field(default_factory=dict)


class Store:
    """Records of one study, in a folder of its own.

    A record is written last and holds the SHA-256 of its files, so it vouches for them: a run that
    was cut short, or whose files were changed, is simply not there and is made again.

    Args:
        folder: made if it is not there.
        settings: everything that decides the outcome of the runs: model fingerprint, versions,
            steps, seeds. Records of other settings are never mixed in.

    Raises:
        InputError: the folder holds a study with other settings, or `study.json` is damaged.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.settings = json.loads(json.dumps(without_nan(dict(settings))))
        self.folder.mkdir(parents=True, exist_ok=True)
        described = self.folder / "study.json"
        if described.exists():
            self._check(described)
        else:
            write_json(described, self.settings)

    def _check(self, described: Path) -> None:
        try:
            found = json.loads(described.read_text())
            names = sorted(set(found) | set(self.settings))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{described} cannot be read ({error}); choose another folder, or remove this one."
            ) from error
        other = [name for name in names if found.get(name) != self.settings.get(name)]
        if other:
            name = other[0]
            raise InputError(
                f"The folder {self.folder} holds runs with other settings: {', '.join(other)} "
                f"({name} was {_short(found.get(name))}, now {_short(self.settings.get(name))}). "
                "Choose another folder; the runs there were left as they are."
            )

    def load(self, key: Mapping[str, str]) -> Record | None:
        """The record of a run, or None where there is no whole one."""
        path = self._path(key, ".json")
        try:
            stored = json.loads(path.read_text())
            if stored["key"] != dict(key):
                return None
            files = {suffix: self._path(key, suffix) for suffix in stored["files"]}
            whole = all(_digest(files[name]) == stored["files"][name] for name in files)
            return Record(dict(stored["values"]), files) if whole else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
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
            InputError: a suffix that is no plain suffix.
            OSError: the disk is full; earlier records stay.
        """
        record = self._path(key, ".json")
        # an older record would vouch for files that are replaced now
        record.unlink(missing_ok=True)
        digests = {}
        for suffix, write in (files or {}).items():
            if not re.fullmatch(r"\.[a-z0-9]+", suffix) or suffix == ".json":
                raise InputError(f"{suffix!r} is no suffix of a run's file.")
            path = self._path(key, suffix)
            with atomic_path(path) as temporary:
                write(temporary)
            digests[suffix] = _digest(path)
        plain = without_nan(dict(values))
        write_json(
            record,
            {
                "key": dict(key),
                "values": plain,
                "files": digests,
                "provenance": without_nan(dict(provenance or {})),
            },
        )
        return Record(plain, {suffix: self._path(key, suffix) for suffix in digests})

    def _path(self, key: Mapping[str, str], suffix: str) -> Path:
        """Readable, and safe whatever the key holds; a digest keeps like names apart."""
        text = json.dumps(dict(key), sort_keys=True, ensure_ascii=False)
        readable = "-".join(re.sub(r"[^A-Za-z0-9]+", "-", part).strip("-") for part in key.values())
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        return self.folder / f"{readable[:80]}-{digest}{suffix}"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
