"""The explorer as a Jupyter widget; it needs the optional package anywidget."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any, Protocol

from recast_probe._utils.checks import check_indices
from recast_probe._utils.optional import need
from recast_probe.errors import RecastProbeError
from recast_probe.explorer.data import Content, data_url
from recast_probe.explorer.page import SCRIPT, STYLE
from recast_probe.runs.result import RunResult


class Runs(Protocol):
    """Runs that a page can ask for; see `Explorer`."""

    def prune(self, tokens: Sequence[int]) -> RunResult: ...

    def cut(self, block: int, head: int | None) -> RunResult: ...

    def swap(self, name: str) -> RunResult: ...


def make_widget(content: Content, runs: Runs, swaps: Sequence[str] | None) -> Any:
    """The widget of an explorer; swaps is None where it runs no model.

    It holds the page (``page``), all arrays one after another (``arrays``), the state of the
    controls (``state``) and the brushed reference tokens (``brushed``). A message of it asks for a
    run; the answer is a message with the picture, or with the reason why there is none.

    Raises:
        MissingPackageError: anywidget is not installed.
    """
    anywidget = need("anywidget", "rp.explore in a notebook")
    import traitlets

    class ExplorerWidget(anywidget.AnyWidget):  # type: ignore[name-defined, misc]
        _esm = SCRIPT
        _css = STYLE
        page = traitlets.Dict().tag(sync=True)
        arrays = traitlets.Bytes().tag(sync=True)
        state = traitlets.Dict().tag(sync=True)
        brushed = traitlets.List(traitlets.Int()).tag(sync=True)

    page = dict(content.page)
    described, start, parts = {}, 0, []
    for name, data in content.arrays.items():
        described[name] = {**page["arrays"][name], "start": start, "length": len(data)}
        parts.append(data)
        start += len(data)
    page["arrays"] = described
    page["live"] = None if swaps is None else {"swaps": list(swaps)}
    widget = ExplorerWidget(page=page, arrays=b"".join(parts))
    widget.on_msg(lambda _, message, __: widget.send(answer(runs, message)))
    return widget


def answer(runs: Runs, message: Any) -> dict[str, Any]:
    """What a message of the page gets back: ``made`` with a picture and words, or ``refused``.

    There is an answer whatever happens, since the page waits for one. Only what it can ask for is
    run, with numbers and names that are checked first.
    """
    asked = message if isinstance(message, dict) else {}
    try:
        action = asked.get("action")
        if action == "prune":
            tokens = _numbers(asked.get("tokens"))
            result = runs.prune(tokens)
            words = f"Pruned to {len(set(tokens))} reference tokens"
        elif action == "cut":
            block, head = asked.get("block"), asked.get("head")
            (block,) = _numbers([block])
            heads = None if head is None else _numbers([head])[0]
            result = runs.cut(block, heads)
            words = f"Block {block}, {'all heads' if heads is None else f'head {heads}'} cut"
        elif action == "swap":
            name = str(asked.get("name"))
            result = runs.swap(name)
            words = f"Reference: {name}"
        else:
            return {"kind": "refused", "words": f"There is no action {str(action)[:40]!r}."}
        return {"kind": "made", "words": words, "image": data_url(result.image)}
    except RecastProbeError as error:
        return {"kind": "refused", "words": str(error)}
    except Exception as error:  # want of memory, or whatever a pipeline raises
        traceback.print_exc()
        return {"kind": "refused", "words": f"{type(error).__name__}: {error}"}


def _numbers(given: Any) -> list[int]:
    return check_indices("What the page asks for", given if isinstance(given, list) else [given])
