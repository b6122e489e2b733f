"""The explorer as one HTML file: no server, no request, no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from recast_probe.explorer.data import Content

STATIC = Path(__file__).parent / "static"
SCRIPT, STYLE = STATIC / "explorer.js", STATIC / "explorer.css"
START = "\nopenPage(document);\n"


def html_page(content: Content, title: str) -> str:
    """The whole page as text. Everything that comes from a run is data: it stands in JSON, whose
    ``<`` is written as an escape, and the script sets it as text. The page's policy lets no other
    script run and nothing be fetched.
    """
    script = "\n" + SCRIPT.read_text(encoding="utf-8") + START
    style = STYLE.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data: blob:; script-src {_digest(script)}; "
        f"style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{style}</style>\n</head>\n"
        '<body class="recast-page">\n<main class="recast-explorer" id="recast-explorer">\n'
        "<noscript>This page draws itself with its own script, which is switched off in this "
        "browser.</noscript>\n</main>\n"
        f'<script type="application/json" id="recast-data">{as_json(content)}</script>\n'
        f'<script type="module">{script}</script>\n</body>\n</html>\n'
    )


def as_json(content: Content) -> str:
    """The content as JSON that may stand inside a script element."""
    arrays = {
        name: {**content.page["arrays"][name], "data": base64.b64encode(each).decode("ascii")}
        for name, each in content.arrays.items()
    }
    page: Mapping[str, Any] = {**content.page, "arrays": arrays}
    text = json.dumps(page, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _digest(text: str) -> str:
    found = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(found).decode('ascii')}'"
