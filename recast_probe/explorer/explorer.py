"""``rp.explore``: what the generation reads of the reference, under the mouse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from recast_probe.errors import InputError
from recast_probe.explorer.data import BUDGET, Content, Shown, content
from recast_probe.explorer.live import LiveRuns
from recast_probe.explorer.outlines import outlined_tokens
from recast_probe.explorer.page import html_page
from recast_probe.explorer.same_run import same_references
from recast_probe.files.atomic import write_bytes
from recast_probe.images.loading import ImageSources, load_image
from recast_probe.probe import Probe
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.result import RunResult


class Explorer:
    """One run, or two beside each other; shown by a notebook as a widget, or saved as a page.

    Attributes:
        runs: what is shown of each.
        content: what the page holds.
        live: runs that can be started from it, or None.
        made: results of those that were started, in their order.

    Made by `explore`, whose example shows it.
    """

    def __init__(
        self, runs: Sequence[Shown], content: Content, live: LiveRuns | None, max_bytes: int
    ) -> None:
        self.runs, self.content, self.live = tuple(runs), content, live
        self.max_bytes = max_bytes
        self.made: list[RunResult] = []
        self._widget: Any = None

    @property
    def title(self) -> str:
        """What page and window are called."""
        return " and ".join(run.title for run in self.runs)

    def html(self) -> str:
        """The page as text of an HTML document, which needs no other file and fetches nothing."""
        return html_page(self.content, f"{self.title} - attention to the reference")

    def save(self, path: str | Path) -> Path:
        """Write the page, whole or not at all.

        Raises:
            InputError: the name does not end in .html, or its folder does not exist.
        """
        path = Path(path)
        if path.suffix.lower() != ".html":
            raise InputError(f"The explorer is saved as HTML: {str(path)!r} must end in .html.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {str(path.parent)!r} does not exist; make it first.")
        return write_bytes(path, self.html().encode("utf-8", "replace"))

    def widget(self) -> Any:
        """The Jupyter widget, always the same one.

        Raises:
            MissingPackageError: anywidget is not installed.
        """
        if self._widget is None:
            from recast_probe.explorer.widget import make_widget

            swaps = None if self.live is None else list(self.live.swaps)
            self._widget = make_widget(self.content, self, swaps)
        return self._widget

    @property
    def brushed(self) -> list[int]:
        """Reference tokens that are brushed in the widget now, ascending; none before it is shown.

        Examples:
            >>> from recast_probe.testing.planted_profiles import planted
            >>> import numpy as np
            >>> rp.explore(planted(np.ones(16))).brushed
            []
        """
        return [] if self._widget is None else sorted(self._widget.brushed)

    def prune(self, tokens: Sequence[int] | None = None) -> RunResult:
        """The run with only these reference tokens, by default the brushed ones; see ``Keep``."""
        chosen = self.brushed if tokens is None else tokens
        if len(chosen) == 0:
            raise InputError("No reference tokens are brushed; drag over the reference first.")
        return self._kept(self._live().prune(chosen))

    def cut(self, block: int, head: int | None = None) -> RunResult:
        """The run in which a head (or all heads) of a block does not read the reference."""
        return self._kept(self._live().cut(block, head))

    def swap(self, name: str) -> RunResult:
        """The run with another reference, one of ``swaps``."""
        return self._kept(self._live().swap(name))

    def _live(self) -> LiveRuns:
        if self.live is None:
            raise InputError("Give probe= and image= to rp.explore, so that it can run the model.")
        return self.live

    def _kept(self, result: RunResult) -> RunResult:
        self.made.append(result)
        return result

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget()._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        maps = sum(run.maps is not None for run in self.runs)
        return (
            f"Explorer({self.title}: {len(self.runs)} run(s), {maps} with maps, "
            f"{self.content.nbytes / 1e6:.1f} of {self.max_bytes / 1e6:.1f} MB)"
        )


def explore(
    shown: RunResult | AttentionProfile,
    maps: AttentionMaps | None = None,
    *,
    image: ImageSources | None = None,
    generated: ImageSources | None = None,
    title: str = "",
    outlines: Mapping[str, Any] | None = None,
    words: Sequence[str] | None = None,
    compare: Explorer | RunResult | AttentionProfile | None = None,
    probe: Probe | None = None,
    swaps: Mapping[str, ImageSources] | None = None,
    settings: Mapping[str, Any] | None = None,
    mean_over: Sequence[str] = (),
    max_bytes: int = BUDGET,
) -> Explorer:
    """A run to look into: hover a token to see where it looks, or who reads it.

    A notebook shows it as a widget; ``.save("explore.html")`` writes a page that opens by a double
    click. Maps and scores are held in 8 bits, and the page says the largest error; nothing is left
    out to make them fit.

    Args:
        shown: a result with a profile (``generate(..., profile=True)``), or a profile.
        maps: of the same run, of all generation tokens or some; without them the page knows the
            mean over generation tokens only.
        image: the reference, or several; as the model saw it, unless ``probe`` is given, which
            knows what it cuts off.
        generated: the picture that was made, or one for each layer of the generation's token grid;
            by default the result's.
        title: what the run is called; by default its prompt.
        outlines: sets of reference tokens to draw around, by name: masks as arrays, a ranking with
            a number of tokens, ``(ranking, 64)``, a ``Keep``, or indices.
        words: one for each text token; by default those that ``probe`` knows of the prompt.
        compare: a second run beside the first, with the same cursor: a result, a profile, or
            what ``explore`` gave for it. Where it had other references, a result brings its own
            pictures, a profile none, and ``outlines`` are drawn in the first only.
        probe: of the pipeline that made the run: then the widget runs it with the brushed tokens
            alone, with a head cut, or with another reference.
        swaps: these other references, by name.
        settings: arguments of the run besides image, prompt, steps and seed.
        mean_over: ("head",) to hold the mean of the heads' scores.
        max_bytes: most bytes of arrays and pictures in a file.

    Raises:
        InputError: something that does not fit the run, or more than ``max_bytes``: the message
            says what to choose.

    Examples:
        >>> import tempfile
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe.tiny("flux-kontext"), tiny.tiny_image()
        >>> run = {"steps": 2, "progress": False}
        >>> result = probe.generate(image, "a cat", profile=True, **run)
        >>> maps = probe.attention_maps(image, "a cat", **run)
        >>> explorer = rp.explore(result, maps, image=image)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     explorer.save(f"{folder}/explore.html").name
        'explore.html'
    """
    profile, pictures = _profile_of(shown)
    if generated is not None:
        pictures = shown_references(generated)
    references = shown_references(image, probe, {**_sizes(profile), **(settings or {})})
    prompt = profile.provenance.get("prompt")
    run = Shown(
        profile,
        maps,
        references,
        pictures,
        title or (prompt if isinstance(prompt, str) and prompt else "A run"),
        _words(profile, probe, words),
        getattr(shown, "layer_name", "layer"),
        outlined_tokens(outlines, profile.layout),
    )
    runs = [run]
    if isinstance(compare, Explorer):
        runs += compare.runs[:1]
    elif compare is not None:
        runs.append(_second(compare, run, probe))
    live = None
    if probe is not None:
        live = LiveRuns(probe, image, profile, swaps or {}, settings or {})
    elif swaps or settings:
        raise InputError("swaps and settings are for runs of a probe; give probe= as well.")
    return Explorer(runs, content(runs, max_bytes, mean_over), live, max_bytes)


def _second(compare: RunResult | AttentionProfile, first: Shown, probe: Probe | None) -> Shown:
    """The run beside the first; pictures and outlines of the first are not drawn over another
    reference."""
    profile, made = _profile_of(compare)
    references, outlines = first.references, first.outlines
    if same_references(first.profile.provenance, profile.provenance) is False:
        own = getattr(compare, "references", ())
        references = shown_references(own or None, probe, _sizes(profile))
        outlines = {}
    name = profile.provenance.get("prompt")
    return Shown(
        profile,
        None,
        references,
        made,
        name if isinstance(name, str) and name else "Another run",
        _words(profile, probe, None),
        getattr(compare, "layer_name", "layer"),
        outlines,
    )


def _sizes(profile: AttentionProfile) -> dict[str, int]:
    """Arguments of the run that are whole numbers, as sizes are."""
    facts = profile.provenance.get("arguments")
    given = facts.items() if isinstance(facts, dict) else ()
    return {name: value for name, value in given if type(value) is int}


def _profile_of(shown: Any) -> tuple[AttentionProfile, tuple[Image.Image, ...]]:
    if isinstance(shown, AttentionProfile):
        return shown, ()
    if not isinstance(shown, RunResult):
        raise InputError(
            f"rp.explore takes a result or a profile, not {type(shown).__name__}; maps come second."
        )
    if len(shown.profiles) != 1:
        raise InputError(
            f"The result has {len(shown.profiles)} profiles, and the explorer shows one run: make "
            "it with generate(..., profile=True) and one prompt, or give one profile."
        )
    return shown.profiles[0], shown.by_layer() if shown.images else ()


def shown_references(
    image: ImageSources | None,
    probe: Probe | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> tuple[Image.Image, ...]:
    """Reference pictures as the model saw them, as far as the probe knows; as they are without.

    Args:
        arguments: of the run, which may say what is cut off.
    """
    if image is None:
        return ()
    given = image if isinstance(image, Sequence) and not isinstance(image, str) else [image]
    loaded = [load_image(each) for each in given]
    if probe is None:
        return tuple(loaded)
    found = []
    for each in loaded:
        left, top, right, bottom = probe.family.crop_box(each, arguments or {})
        x, y = (round(share * each.width) for share in (left, right))
        found.append(each.crop((x, round(top * each.height), y, round(bottom * each.height))))
    return tuple(found)


def _words(
    profile: AttentionProfile, probe: Probe | None, words: Sequence[str] | None
) -> tuple[str, ...] | None:
    if words is not None:
        return tuple(map(str, words))
    prompt = profile.provenance.get("prompt")
    if probe is None or not isinstance(prompt, str):
        return None
    arguments = profile.provenance.get("arguments")
    return probe.family.text_words(
        prompt, profile.layout.text, arguments if isinstance(arguments, dict) else {}
    )
