"""DreamBooth's photographs (Ruiz et al., CVPR 2023): 30 subjects with 25 prompts each."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from recast_probe.datasets.case import FileCase, noise_seed
from recast_probe.datasets.choosing import chosen
from recast_probe.datasets.files import IMAGES, existing_folder, inside, listed, staying, text_of
from recast_probe.errors import InputError
from recast_probe.files.input_files import is_folder
from recast_probe.masks import MaskFinder

TABLE = "prompts_and_classes.txt"
LAYOUT = f"{TABLE} and a folder of photographs for each subject, such as backpack/00.jpg; get it \
with `git clone https://github.com/google/dreambooth` and name its folder dataset/"
LIVE = ("cat", "dog")  # the classes of the paper's live subjects, which have prompts of their own
CATEGORIES = ("object", "live subject")
# possessive, as a long line without an end would be tried from every "{1}" on
_TEMPLATE = r"'((?:(?!\{1\})[^'\n])*+\{1\}[^'\n]*+)'"


@dataclass(frozen=True)
class Prompts:
    """What `prompts_and_classes.txt` says.

    Attributes:
        classes: by subject, such as {"dog3": "dog"}.
        objects, live: templates with {0} for a token and {1} for the class.
    """

    classes: dict[str, str]
    objects: tuple[str, ...]
    live: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Prompts:
        """Read the file.

        Raises:
            InputError: it lacks the table or one of the two lists.
        """
        text = text_of(path)
        rows = re.findall(r"^([\w-]+),([^,\n]+)$", text, flags=re.MULTILINE)
        rows = [row for row in rows if row[0] != "subject_name"]
        classes = {name: kind.strip() for name, kind in rows}
        if len(classes) < len(rows):
            raise InputError(f"{str(path)!r} names a subject twice.")
        _, _, objects = text.partition("Object Prompts")
        objects, _, live = objects.partition("Live Subject Prompts")
        lists = [tuple(re.findall(_TEMPLATE, part)) for part in (objects, live)]
        if not classes or not all(lists):
            raise InputError(
                f"{str(path)!r} should hold a table subject_name,class, and the lists 'Object "
                f"Prompts' and 'Live Subject Prompts'; found {len(classes)} subjects, "
                f"{len(lists[0])} and {len(lists[1])} prompts."
            )
        return cls(classes, *lists)

    def of(self, subject: str, token: str = "") -> tuple[str, list[str]]:
        """The category and the prompts of a subject, without a token where none is given."""
        kind = self.classes[subject]
        live = kind in LIVE
        filled = [
            # str.format would look into attributes that a template names
            each.replace("{0}", token).replace("{1}", kind).replace("  ", " ").strip()
            for each in (self.live if live else self.objects)
        ]
        return CATEGORIES[live], filled


def dreambooth(
    path: str | Path | None = None,
    *,
    subjects: int | None = None,
    prompts: int | None = None,
    seed: int = 0,
    masks: MaskFinder | None = None,
    photographs: int | None = 1,
    token: str = "",
) -> list[FileCase]:
    """The cases of DreamBooth's photographs, as published.

    Prompts name the class only ("a dog in the jungle"): an in-context model is shown the subject
    and needs no learned token. There are neither masks nor targets.

    Args:
        path: the folder with `prompts_and_classes.txt`, or the repository's.
        subjects, prompts: how many, at most; None for all.
        seed: from which each case's noise seed is drawn.
        masks: finds the subjects; see `recast_probe.masks`.
        photographs: how many of each subject serve as a reference, at most; each is a subject of
            its own in the statistics, so more than one breaks their independence. None for all.
        token: what stands before the class, such as "sks".

    Raises:
        InputError: no path, a folder without the file, or a photograph that cannot be used.

    Warns:
        UserWarning: subjects of the file that have no folder, which are left out.

    Examples:
        >>> import tempfile
        >>> from recast_probe.testing.tiny import tiny_image
        >>> lists = "Object Prompts 'a {0} {1} in snow' Live Subject Prompts 'a {0} {1}'"
        >>> with tempfile.TemporaryDirectory() as place:
        ...     Path(place, "fox").mkdir()
        ...     tiny_image().save(Path(place, "fox", "00.jpg"))
        ...     number = Path(place, TABLE).write_text(f"fox,fox\\n{lists}")
        ...     [(case.subject, case.prompt) for case in dreambooth(place)]
        [('fox', 'a fox in snow')]
    """
    if path is None:
        raise InputError(
            f"DreamBooth needs the path of its folder (--data FOLDER). It should hold {LAYOUT}."
        )
    root = existing_folder(path, "DreamBooth", LAYOUT)
    if not (root / TABLE).is_file() and (root / "dataset" / TABLE).is_file():
        root = root / "dataset"
    if not (root / TABLE).is_file():
        raise InputError(f"DreamBooth: the folder {str(root)!r} should hold {LAYOUT}.")
    told = Prompts.read(root / TABLE)
    cases, absent = [], []
    for subject in told.classes:
        folder = inside(root, subject, TABLE)
        files = [
            staying(root, each, TABLE)
            for each in (listed(folder) if is_folder(folder) else ())
            if each.suffix.lower() in IMAGES and not each.name.startswith(".")
        ]
        if not files:
            absent.append(subject)
        category, wanted = told.of(subject, token)
        for file in files[:photographs]:
            name = subject if photographs == 1 else f"{subject} {file.stem}"
            cases += [
                FileCase(
                    subject=name,
                    prompt=prompt,
                    category=category,
                    seed=noise_seed(seed, name, prompt),
                    reference_file=file,
                    finder=masks,
                )
                for prompt in wanted
            ]
    if absent:
        warnings.warn(
            f"DreamBooth: {len(absent)} of the {len(told.classes)} subjects in {TABLE} have no "
            f"photographs in {str(root)!r} and are left out: {', '.join(absent)}.",
            stacklevel=2,
        )
    return chosen(cases, subjects, prompts, "DreamBooth")
