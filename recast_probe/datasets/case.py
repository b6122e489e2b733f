"""What a benchmark consists of, and cases whose pictures lie in files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.files.envelope import digest as json_digest
from recast_probe.files.input_files import read_bytes
from recast_probe.images.loading import (
    check_same_shape,
    fit_mask,
    image_digest,
    load_image,
    load_mask,
    read_mask,
)
from recast_probe.images.mask_values import check_divides
from recast_probe.images.pictures import open_picture
from recast_probe.masks import MaskFinder, find_mask, finder_identity, finder_name


class Case(Protocol):
    """One prompt for one reference, as every benchmark gives it.

    Attributes:
        subject: names the reference; cases of one subject share it.
        prompt: the instruction.
        category: of the edit or of the subject, as the benchmark says.
        seed: of the whole run; the same for all arms.
        reference: upright RGB picture.
        reference_mask: where the subject is in it, bool (height, width); None for not known.
        target: the true answer; None where there is none.
        target_mask: where the subject is in the target; None for not known.

    Examples:
        >>> case = rp.datasets.load_benchmark("pocket", subjects=1, prompts=1)[0]
        >>> case.reference.size, case.reference_mask.shape
        ((128, 128), (128, 128))
    """

    @property
    def subject(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def category(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def reference(self) -> Image.Image: ...
    @property
    def reference_mask(self) -> np.ndarray | None: ...
    @property
    def target(self) -> Image.Image | None: ...
    @property
    def target_mask(self) -> np.ndarray | None: ...


@dataclass(frozen=True, eq=False)
class FileCase:
    """A case whose pictures are read from files when they are asked for; see `Case`.

    Attributes:
        reference_file, mask_file, target_file, target_mask_file: where they lie; None for none.
        finder: finds the masks that are not given. A picture is searched once, and again when the
            finder is another by its content; one without content must stay as it is.

    Examples:
        >>> case = FileCase("fox", "in snow", "animal", seed=0, reference_file=Path("fox.png"))
        >>> case.target is None, case.reference_file.name
        (True, 'fox.png')
    """

    subject: str
    prompt: str
    category: str
    seed: int
    reference_file: Path
    mask_file: Path | None = None
    target_file: Path | None = None
    target_mask_file: Path | None = None
    finder: MaskFinder | None = None

    @property
    def reference(self) -> Image.Image:
        return _image(self.reference_file)

    @property
    def reference_mask(self) -> np.ndarray | None:
        return _mask(self.reference_file, self.mask_file, self.finder)

    @property
    def target(self) -> Image.Image | None:
        return None if self.target_file is None else _image(self.target_file)

    @property
    def target_mask(self) -> np.ndarray | None:
        if self.target_file is None:
            return None
        return _mask(self.target_file, self.target_mask_file, self.finder)

    def check(self) -> None:
        """Read every file once.

        Raises:
            InputError: a file that cannot be read, or a mask of another shape than its picture.
        """
        for picture, mask in (
            (self.reference_file, self.mask_file),
            (self.target_file, self.target_mask_file),
        ):
            if picture is not None:
                _check(picture, mask)


def mask_origin(case: Case, picture: Literal["reference", "target"] = "reference") -> str:
    """Where the mask of a case's picture comes from: "given", the name of a finder, or "none".

    Examples:
        >>> mask_origin(FileCase("fox", "in snow", "animal", 0, Path("fox.png"), Path("mask.png")))
        'given'
        >>> mask_origin(FileCase("fox", "in snow", "animal", 0, Path("fox.png")))
        'none'
    """
    of_target = picture == "target"
    if isinstance(case, FileCase):
        if (case.target_mask_file if of_target else case.mask_file) is not None:
            return "given"
        searched = case.finder is not None and not (of_target and case.target_file is None)
        return finder_name(case.finder) if case.finder is not None and searched else "none"
    mask = case.target_mask if of_target else case.reference_mask
    return "none" if mask is None else "given"


def file_label(cases: Iterable[Case]) -> dict[str, str]:
    """A column of tables on the files of cases: {"files": 12 hexadecimal digits}; {} without files.

    Another picture of the same name, mask or seed gives another label. `case_digest` tells all
    kinds of cases apart.

    Raises:
        InputError: a file that cannot be read.

    Examples:
        >>> file_label(rp.datasets.load_benchmark("pocket", subjects=1, prompts=1))
        {}
    """
    digest = hashlib.sha256()
    for case in cases:
        if not isinstance(case, FileCase):
            return {}
        digest.update(f"{case.seed}\n".encode())
        for path in (case.reference_file, case.mask_file, case.target_file, case.target_mask_file):
            digest.update((_Content(path).digest if path else "none").encode())
    return {"files": digest.hexdigest()[:12]}


def case_digest(cases: Iterable[Case], *, strict: bool = True) -> str:
    """16 hexadecimal digits of everything that decides runs on these cases, and their scores.

    Subject, prompt, category, seed, pictures, masks, and the finder of masks that are not given. A
    store keeps runs by it, so that runs on one case are never taken for runs on another that only
    has the same names.

    Args:
        strict: refuse a finder that cannot be told from another by its content, see
            `recast_probe.masks.finder_identity`; only where nothing is kept may it be told by name.

    Raises:
        InputError: a file that cannot be read; see ``strict``.

    Examples:
        >>> one, other = (
        ...     rp.datasets.load_benchmark("pocket", subjects=1, prompts=1, seed=seed)
        ...     for seed in (0, 1)
        ... )
        >>> one[0].subject == other[0].subject, case_digest(one) == case_digest(other)
        (True, False)
    """
    digest = hashlib.sha256()
    for case in cases:
        facts: list[Any] = [case.subject, case.prompt, case.category, int(case.seed)]
        if isinstance(case, FileCase):
            paths = (case.reference_file, case.mask_file, case.target_file, case.target_mask_file)
            facts += [None if path is None else _Content(path).digest for path in paths]
            finder = case.finder
            facts.append(None if finder is None else finder_identity(finder, strict=strict))
        else:
            pictures = (case.reference, case.target)
            facts += [None if each is None else image_digest(each) for each in pictures]
            masks = (case.reference_mask, case.target_mask)
            facts += [None if each is None else _array_digest(each) for each in masks]
        digest.update(f"{json.dumps(facts)}\n".encode())
    return digest.hexdigest()[:16]


def _array_digest(array: np.ndarray) -> str:
    found = hashlib.sha256(f"{array.dtype.str} {array.shape}\n".encode())
    found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def noise_seed(seed: int, subject: str, prompt: str) -> int:
    """Seed of a case that comes without one; it stays the same in any part of the benchmark."""
    digest = hashlib.sha256(f"{seed}\n{subject}\n{prompt}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % 2**31


def check_cases(cases: Iterable[FileCase], what: str) -> None:
    """Read every picture once, so that a long run does not stop at one of them.

    Raises:
        InputError: names the first three that cannot be used, and says how many there are.
    """
    problems: dict[str, None] = {}
    for case in cases:
        try:
            case.check()
        except InputError as error:
            problems[str(error)] = None
    if problems:
        listed = "\n".join(f"- {problem}" for problem in list(problems)[:3])
        more = f"\n- and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError(f"{what} cannot be used:\n{listed}{more}")


class _Content:
    """What a file holds now; equal to another one of the same path and the same bytes.

    Attributes:
        path: where it lies.
        digest: SHA-256 of its bytes. Times and sizes would not tell that it was replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes: bytes | None = read_bytes(path, "The data", LARGEST_PICTURE)
        self.digest = hashlib.sha256(self._bytes).hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Content):
            return NotImplemented
        return (self.path, self.digest) == (other.path, other.digest)

    def __hash__(self) -> int:
        return hash((self.path, self.digest))

    def taken(self) -> bytes:
        """The bytes, which are forgotten: what a cache remembers of a file is not the file."""
        content, self._bytes = self._bytes, None
        return self.path.read_bytes() if content is None else content


LARGEST_PICTURE = 2**29
"""Bytes of a picture's file; below it lies any that may be decoded."""
_CHECKED: set[tuple[str, ...]] = set()


def _check(picture: Path, mask: Path | None) -> None:
    content = _Content(picture)
    key: tuple[str, ...] = (str(picture), content.digest)
    if mask is not None:
        key += (str(mask), _Content(mask).digest)
    if key in _CHECKED:
        return
    image = _read(content)
    if mask is not None:
        check_same_shape(drawn := read_mask(mask), image)
        check_divides(drawn, f"The mask {str(mask)!r}")
    _CHECKED.add(key)


@lru_cache(maxsize=4)
def _read(content: _Content) -> Image.Image:
    return load_image(open_picture(content.taken(), f"The picture {str(content.path)!r}"))


class _Finder:
    """A finder as it is now; equal to any that does the same. One without content is itself only.

    Attributes:
        finder: the finder.
    """

    def __init__(self, finder: MaskFinder) -> None:
        self.finder = finder
        try:
            self._key = json_digest(finder_identity(finder))
        except InputError:
            self._key = f"{id(finder)}"  # which stays its own while this object holds it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Finder) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@lru_cache(maxsize=64)
def _found(content: _Content, finder: _Finder) -> np.ndarray | None:
    """None where the finder sees nothing: then the whole picture counts."""
    # a copy: the finder may go on with its own array
    found = find_mask(_read(content), finder.finder).copy()
    content.taken()
    return found if found.any() else None


def _image(path: Path) -> Image.Image:
    # a copy, so that nobody changes what the next one gets
    return _read(_Content(path)).copy()


def _mask(picture: Path, drawn: Path | None, finder: MaskFinder | None) -> np.ndarray | None:
    if drawn is not None:
        return fit_mask(load_mask(drawn), _image(picture))
    found = None if finder is None else _found(_Content(picture), _Finder(finder))
    return None if found is None else found.copy()
