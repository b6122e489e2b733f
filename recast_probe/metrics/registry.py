"""Every metric by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recast_probe._utils.optional import OPTIONAL, is_installed
from recast_probe._utils.suggestions import did_you_mean
from recast_probe.errors import InputError
from recast_probe.metrics import clip, dinov2, structure
from recast_probe.metrics.bundled import Colour, MobileNet
from recast_probe.metrics.faces import auraface
from recast_probe.metrics.metric_types import (
    ImageMetric,
    Metric,
    SetMetric,
    TextMetric,
    Whole,
)
from recast_probe.metrics.pretrained import absent, how_to_get
from recast_probe.metrics.sets import KID, RFID

WHOLE = "-whole"


@dataclass(frozen=True)
class Entry:
    """What the registry knows of a metric before it is made.

    Attributes:
        kind: its class.
        source: where its weights are by default; None for metrics without any to fetch.
        files: of the source.
        packages: beyond what the package itself needs.
    """

    kind: Callable[..., Metric]
    source: str | None = None
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


ENTRIES: dict[str, Entry] = {
    "mobilenet": Entry(MobileNet),
    "colour": Entry(Colour),
    "dinov2": Entry(dinov2.DINOv2, dinov2.SOURCE, dinov2.FILES),
    "clip-i": Entry(clip.ClipI, clip.SOURCE, clip.FILES),
    "clip-t": Entry(clip.ClipT, clip.SOURCE, clip.FILES),
    "auraface": Entry(auraface.AuraFace, auraface.SOURCE, auraface.FILES, ("onnxruntime",)),
    "ssim": Entry(structure.SSIM, packages=("skimage",)),
    "lpips": Entry(structure.LPIPS, packages=("lpips",)),
    "kid": Entry(KID, packages=("torchmetrics",)),
    "rfid": Entry(RFID, packages=("torchmetrics",)),
}


def register_metric(kind: type[Metric], *, packages: Iterable[str] = ()) -> type[Metric]:
    """Let a metric be made by its name, in tables, commands and `metric`.

    Args:
        kind: a subclass of `ImageMetric`, `TextMetric` or `SetMetric` with a `name`, made without
            arguments by default.
        packages: names of modules that it needs beyond those of the package.

    Returns:
        The same class, so that this can be its decorator.

    Raises:
        InputError: it is not such a class, lacks a method, or has a name that is taken or that a
            list of metrics could not hold.

    Examples:
        >>> from recast_probe.metrics.metric_types import TextMetric
        >>> class Words(TextMetric):
        ...     name = "words"
        ...     def score_text(self, image, prompt):
        ...         return float(len(prompt.split()))
        ...     def provenance(self):
        ...         return {"metric": self.name}
        >>> register_metric(Words) is Words
        True
        >>> del ENTRIES["words"]  # only to leave no trace of this example
    """
    kinds = (ImageMetric, TextMetric, SetMetric)
    if not (isinstance(kind, type) and issubclass(kind, kinds)):
        raise InputError(
            "register_metric takes a class that inherits from ImageMetric, TextMetric or "
            f"SetMetric, not {kind!r}."
        )
    name = getattr(kind, "name", None)
    if lacking := [*sorted(kind.__abstractmethods__), *([] if name else ["name"])]:
        raise InputError(f"The metric {kind.__name__} lacks {', '.join(lacking)}.")
    assert name is not None
    if name.endswith(WHOLE) or set(name) & set(",= "):
        raise InputError(
            f"A metric cannot be called {name!r}: names have no comma, no space and no '=', and "
            f"{WHOLE!r} after a name asks for whole images."
        )
    if name in ENTRIES:
        raise InputError(f"There is a metric {name!r} already; give {kind.__name__} another name.")
    ENTRIES[name] = Entry(kind, packages=tuple(packages))
    return kind


def metric_names() -> list[str]:
    """Every name that `metric` takes; "-whole" is the variant that ignores masks.

    Examples:
        >>> "dinov2" in metric_names(), "dinov2-whole" in metric_names()
        (True, True)
    """
    whole = [name + WHOLE for name, entry in ENTRIES.items() if _is_image_metric(entry)]
    return [*ENTRIES, *whole]


def metric(
    name: str, source: str | Path | None = None, *, device: str = "cpu", **settings: Any
) -> Any:
    """A metric by its name.

    Image metrics use the masks that they are given; with "-whole" after the name they ignore them.

    Args:
        name: one of `metric_names()`.
        source: repository or folder of the weights, where the metric has some to fetch.
        device: where it runs, where it has a network.
        settings: of the metric's class, such as `extractor` for "kid" and "rfid".

    Returns:
        An `ImageMetric`, a `TextMetric` or a `SetMetric`.

    Raises:
        InputError: an unknown name, or a source for a metric without weights to fetch.
        MissingWeightsError: the weights are not here and cannot be downloaded.
        MissingPackageError: a package that it needs is not installed.

    Examples:
        >>> metric("colour-whole").name
        'colour-whole'
    """
    entry = _entry(name)
    if source is not None and entry.source is None:
        raise InputError(f"{name} has no weights to fetch; leave {str(source)!r} out.")
    if entry.source is not None:
        settings["source"] = source or entry.source
    if entry.source is not None or entry.kind is structure.LPIPS:
        settings["device"] = device
    made = entry.kind(**settings)
    if name.endswith(WHOLE):
        assert isinstance(made, ImageMetric)
        return Whole(made)
    return made


def metrics_of(named: str | Iterable[str | Metric], device: str = "cpu") -> list[Metric]:
    """Metrics from "dinov2=FOLDER,clip-i,kid", or from such parts, or as they are.

    Raises InputError for unknown names, and for one that is there twice.

    Examples:
        >>> [each.name for each in metrics_of("mobilenet,colour")]
        ['mobilenet', 'colour']
    """
    parts = named.split(",") if isinstance(named, str) else list(named)
    found: list[Metric] = []
    for part in parts:
        if isinstance(part, Metric):
            found.append(part)
        elif part.strip():
            name, _, source = part.strip().partition("=")
            found.append(metric(name.strip(), source.strip() or None, device=device))
    names = [each.name for each in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"The metric {twice[0]!r} is asked for twice; name it once.")
    return found


def missing(name: str, source: str | Path | None = None) -> str | None:
    """What a metric lacks on this machine, with how to get it; None when it is ready.

    Looks at installed packages and the disk only, and loads nothing.

    Raises:
        InputError: an unknown name.

    Examples:
        >>> missing("colour") is None
        True
    """
    entry = _entry(name)
    for package in entry.packages:
        if not is_installed(package):
            known = OPTIONAL.get(package)
            how = "install the package that has it" if known is None else known.how_to_get
            return f"the package {package}: {how}"
    if entry.source is None:
        return None
    files = absent(source or entry.source, entry.files)
    if not files:
        return None
    where = str(source or entry.source)
    return f"{', '.join(files)} of {where}. {how_to_get(name, where)}"


def is_aligned(name: str) -> bool:
    """Whether a metric compares two pictures of one scene place by place; nothing is loaded."""
    return bool(getattr(_entry(name).kind, "aligned", False))


def _entry(name: str) -> Entry:
    if name not in metric_names():
        raise InputError(
            f"There is no metric {name!r}; choose from {', '.join(metric_names())}."
            f"{did_you_mean(name, metric_names())}"
        )
    return ENTRIES[name.removesuffix(WHOLE)]


def _is_image_metric(entry: Entry) -> bool:
    return isinstance(entry.kind, type) and issubclass(entry.kind, ImageMetric)
