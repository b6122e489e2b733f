"""The command line: odd values in every option, measured numbers, and texts that could break out of
a page."""

from __future__ import annotations

import html
import io
import json
import math
import os
import random
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from PIL import Image

from recast_probe.cli import main
from recast_probe.errors import RecastProbeError
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.report import Section, write_report
from tests.fuzz.damage import damaged, edited
from tests.fuzz.harness import FuzzClass

SUMMARY = {
    "model": "tiny",
    "skew": {"top25": 0.61},
    "entropy": {"first": 7.4, "last": 6.1},
    "overlap": {"auroc": 0.8},
    "stability": {"spearman": 0.9},
    "measured": {
        "retention": 0.97,
        "recast_above_self_attention": {"mean": 0.01, "low": -0.01, "high": 0.03, "p_value": 0.2},
        "reused_above_fresh": {"mean": -0.004, "low": -0.006, "high": -0.002, "p_value": 0.01},
        "amortised_speed_up": 1.8,
        "ip_adapter_tokens": 128,
        "ip_adapter_top25": 0.7,
        "ip_adapter_retention": 0.96,
    },
}
POSSIBLE = {
    **dict.fromkeys(("top25", "auroc", "ip_adapter_top25"), (0, 1)),
    **dict.fromkeys(("first", "last"), (0, 64)),
    **dict.fromkeys(("retention", "ip_adapter_retention"), (-1e6, 1e6)),
    "amortised_speed_up": (0, math.inf),
    "spearman": (-1, 1),
}


def _command(*arguments: Any) -> tuple[int, str]:
    """Exit code and standard output; anything but an exit is raised."""
    out = io.StringIO()
    with redirect_stdout(out):
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    return code, out.getvalue()


def _judged(arguments: list[Any]) -> str:
    code, out = _command(*arguments)
    if code == 2:
        return "clear"
    if code:
        return f"RAW exit code {code} of {arguments}"
    if "--json" in arguments:
        json.loads(out, parse_constant=_no_number)
    return "right"


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} in the output")


def _files(folder: Path, base: Path) -> dict[str, Any]:
    image = Image.effect_noise((64, 64), 60).convert("RGB")
    image.save(folder / "image.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 32))
    mask.save(folder / "mask.png")
    os.mkfifo(folder / "fifo")
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    return {"folder": folder, "base": base, "number": 0}


def measured(rng: random.Random, state: dict[str, Any]) -> str:
    """`claims --measured` with an edited summary: no impossible number is printed."""
    path = state["folder"] / "edited.json"
    values = edited(SUMMARY, rng)
    text = json.dumps(values)
    if rng.random() < 0.1:
        text = damaged(text.encode(), rng).decode(errors="replace")
    path.write_text(text)
    places: list[Any] = [path]
    if rng.random() < 0.05:
        places = [rng.choice((state["folder"] / "fifo", "/dev/zero", state["folder"], "x" * 300))]
    code, out = _command("claims", "--measured", *places)
    if code == 2:
        return "clear"
    if code:
        return f"RAW exit code {code}"
    model = str(values.get("model")) if isinstance(values, dict) else ""
    if re.search(r"\b(nan|inf)\b", out.replace(model, ""), flags=re.IGNORECASE):
        return "SILENT: nan or inf is printed"
    for name, (least, most) in POSSIBLE.items():
        for value in _named(values, name):
            if isinstance(value, int | float) and not least <= value <= most:
                return f"SILENT: {name} = {value} was taken"
    return "right" if values == SUMMARY else "accepted"


def _named(values: Any, name: str) -> list[Any]:
    """Numbers that the command reads, by their name."""
    if not isinstance(values, dict):
        return []
    groups = [values.get(key) for key in ("skew", "entropy", "overlap", "stability", "measured")]
    return [group[name] for group in groups if isinstance(group, dict) and name in group]


NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "3",
        "1e20",
        "1e999",
        "nan",
        "inf",
        "-inf",
        "1_000",
        "\u0663",
        "+5",
        " 7 ",
    ),
    *("", "x", "0x10", "9" * 30, "1.5", "\0", "--", "1,2", "true"),
)
TEXTS = (
    "",
    "x",
    "a,b",
    "\u2028",
    "..",
    "single.0",
    "double.99",
    "all",
    "2,5",
    "\u0663",
    "none",
    "\0",
)
PLACES = (
    "fifo",
    "",
    ".",
    "image.png",
    "mask.png",
    "missing.png",
    "x" * 300,
    "summary.json",
    "\udcff",
)


def values(rng: random.Random, state: dict[str, Any]) -> str:
    """One or two odd values in the options of a command that would work without them."""
    folder = state["folder"]
    state["number"] += 1
    image, mask = folder / "image.png", folder / "mask.png"
    out, profile = folder / f"out-{state['number']}", state["base"] / "profile.nc"
    model = state["base"] / "model"
    pictures = {"--image": "place", "--mask": "place", "--mask-inside": "text"}
    bound = {
        **dict.fromkeys(("--steps", "--attention-slowdown", "--calls"), "number"),
        **dict.fromkeys(("--peak-tflops", "--bandwidth-gb"), "number"),
        **{"--tokens": "text", "--with": "with", "--device": "device", "--model": "place"},
    }
    run = {
        **{"--steps": "number", "--seed": "number", "--blocks": "text", "--dtype": "text"},
        **{"--device": "device", "--true-cfg-scale": "number", "--out": "place", **pictures},
        "--mask-image": "place",
        **dict.fromkeys(("--height", "--width", "--num-frames", "--frame-index"), "number"),
    }
    score = {**pictures, "--reference": "place", "--metrics": "text", "--device": "device"}
    common = ["--image", image, "--prompt", "a fox", "--model", model, "--out", out]
    kinds: list[tuple[list[Any], dict[str, str]]] = [
        *[(["bound", "--json"], bound)] * 5,
        *[(["score", "--image", image, "--reference", image, "--json"], score)] * 2,
        (["diagnose", profile, "--out", out, "--json"], {"--blocks": "text", **pictures}),
        (["profile", *common, "--steps", 1], {**run, "--profile-steps": "text"}),
        (
            ["profile", "--image", image, "--prompt", "a", "--out", out, "--steps", 1],
            {"--device": "device!", "--dtype": "text!"},
        ),
        (
            ["generate", *common, "--steps", 2, "--mask", mask],
            {
                **run,
                "--method": "text",
                "--budget": "budget",
                "--ranking": "place",
                "--computed": "number",
                "--refresh": "number",
            },
        ),
        (
            ["pocket", "train", "--pack", folder / "none.npz", "--out", out],
            {"--workers": "number", "--minutes": "number", "--device": "device", "--pack": "place"},
        ),
        (["claims", "--json"], {"--model": "place", "--measured": "place"}),
    ]
    arguments, options = rng.choice(kinds)
    for option in rng.sample(sorted(options), rng.randint(1, 2)):
        arguments = [*arguments, option, _value(rng, options[option], folder)]
    return _judged(arguments)


def _value(rng: random.Random, kind: str, folder: Path) -> str:
    if kind == "number":
        return rng.choice(NUMBERS)
    if kind == "place":
        return str(folder / rng.choice(PLACES))
    if kind == "budget":
        forms = ("{}", "{}%", "0.{}", "eq4:{}:{}", "eq4:{}:{}:{}", "eq4:{}:{}:sigma", "x{}")
        said = rng.choice(forms)
        return said.format(*(rng.choice(NUMBERS) for _ in range(3)))
    if kind == "with":
        name = rng.choice(("prune", "reuse", "compute", "eq4", "read", "none", "fp8", "x"))
        return f"{name}={rng.choice(NUMBERS)}:{rng.choice(NUMBERS)}"
    if kind == "device" or kind == "device!":
        odd = ["abacus", "cuda", "mps", "meta", "cuda:99", "xla", "hpu", "", "vulkan"]
        return rng.choice(odd if kind == "device!" else [*odd, "cpu"])
    return rng.choice((*TEXTS, *NUMBERS)) if kind == "text" else rng.choice(("x", "bfloat16", "\0"))


PAYLOADS = (
    *("<script>alert(1)</script>", "<svg onload=alert(1)>", "' onmouseover='x", '"><img src=x>'),
    *(
        "</title><script>1</script>",
        "<!--",
        "]]>",
        "{0.__class__}",
        "%s%n",
        "$\\frac{",
        "=1+1",
        "\0",
    ),
    *("\x1b[31m", "\u202e", "\ud800", "a" * 20_000, "\n\r\t", "&lt;", "\ufeff", "\U0001f98a", ""),
    *("<meta http-equiv=refresh content=0>", "<base href=//x>", "javascript:alert(1)"),
)


def texts(rng: random.Random, state: dict[str, Any]) -> str:
    """A prompt, a title or a name in the provenance: shown as text and nothing else."""
    payload = "".join(rng.choice(PAYLOADS) for _ in range(rng.randint(1, 3)))
    profile = AttentionProfile.load(state["base"] / "profile.nc")
    changed = dict(profile.provenance) | {"prompt": payload, payload[:50]: payload}
    profile.dataset.attrs["provenance"] = json.dumps(changed)
    path = profile.save(state["folder"] / "text.nc")
    again = AttentionProfile.load(path)
    if again.provenance["prompt"] != payload:
        return "SILENT: another prompt came back"
    shown = [again._repr_html_()]
    page = state["folder"] / "page.html"
    try:
        write_report(
            page,
            title=payload or "-",
            subtitle=payload,
            summary={payload[:30] or "x": 1.0},
            sections=[Section(payload or "-", text=payload)],
            provenance=again.provenance,
        )
        shown.append(page.read_text())
    except RecastProbeError:
        pass
    for each in shown:
        for tag in (
            "<script>alert",
            "<svg onload",
            "<img src=x",
            "<meta http-equiv=refresh",
            "<base ",
        ):
            if tag in each:
                return f"SILENT: {tag} is in the page"
    assert html.escape("<") in shown[0] or "<" not in payload
    return "right"


CLASSES = (
    FuzzClass("measured numbers", measured, _files, 600),
    FuzzClass("command line", values, _files, 500),
    FuzzClass("texts in pages", texts, _files, 100),
)
