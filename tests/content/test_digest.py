"""Values of equal digest do the same in a run, and what does the same has an equal digest."""

from __future__ import annotations

import enum
import functools
import importlib
import os
import runpy
import subprocess
import sys
import types

import pytest
import torch

import recast_probe as rp
from recast_probe.content.description import described
from recast_probe.content.digest import NoContent, content_digest
from recast_probe.testing import tiny


def made(code, name="m"):
    """Something of a user's own module, by its code."""
    module = types.ModuleType("own_module")
    exec(f"import enum, functools, threading\nimport numpy as np\n{code}", module.__dict__)
    return vars(module)[name]


METRIC = "class M:\n    W = {}\n    def __call__(self, image): return self.W\nm = M()"
HELPER = "class H:\n    def __init__(self, w): self.w = w\n"
WEIGHTED = "def f(self, image, w): return w\n"
REDUCED = (
    "def make(w): return M(w)\n"
    "class M:\n    def __init__(self, w): self.w = w\n"
    "    def __call__(self, image): return {}\n"
    "    def __reduce__(self): return make, (self.w,)\nm = M(3)"
)
DECORATED = (
    "import torch\nclass M:\n    W = {}\n    @torch.no_grad()\n"
    "    def __call__(self, image): return self.W\nm = M()"
)
DATACLASS = "import dataclasses\n@dataclasses.dataclass\nclass M:\n    W = {}\nm = M()"
CHANGED = {
    "class whose method is decorated by a package": DECORATED,
    "dataclass without methods of its own": DATACLASS,
    "array of a class": METRIC.format("np.array([{}])"),
    "set of a class": METRIC.format("frozenset([{}])"),
    "NumPy integer of a class": METRIC.format("np.int64({})"),
    "complex number of a class": METRIC.format("{}j"),
    "range of a class": METRIC.format("range({})"),
    "bytes of a class": METRIC.format("bytes([{}])"),
    "private attribute of a class": METRIC.replace("W", "__w").format("({},)"),
    "helper of a class": HELPER + METRIC.format("H({})"),
    "partial of a class": METRIC.format("functools.partial(max, {})"),
    "partial method": WEIGHTED + "class M: __call__ = functools.partialmethod(f, w={})\nm = M()",
    "nested class": "class M:\n    class own: W = {}\nm = M()",
    "member of an enum": "class S(enum.Enum): LOW = {}\nm = S.LOW",
    "member of an enum of texts": "class S(str, enum.Enum): LOW = '{}'\nm = S.LOW",
    "enum that a function reads": "class S(enum.Enum): LOW = {}\nL = S.LOW\ndef m(): return L",
    "method of an enum": "class S(enum.Enum):\n    LOW = 1\n    def w(self): return {}\nm = S.LOW",
    "private slot": "class M:\n    __slots__ = '__w'\n    def __init__(s): s.__w = {}\nm = M()",
    "metaclass": "class T(type):\n    def w(cls): return {}\nclass M(metaclass=T): pass\nm = M()",
    "code of what reduces itself": REDUCED,
    "function that makes it anew": REDUCED.replace("{}", "1").replace("M(w)", "M(w * {})"),
    "masked array": "m = np.ma.masked_array([1, 2, 3], mask=[0, 1, {} - 1])",
    "attribute of a list": "class M(list): pass\nm = M(); m.w = {}",
}
for base, held in {
    "list": "[1]",
    "dict": "a=1",
    "float": "1",
    "str": "'a'",
    "tuple": "[1]",
}.items():
    code = f"class M({base}):\n    def __call__(self): return {{}}\nm = M({held})"
    CHANGED[f"code of a {base}"] = code
CHANGED["code of a named tuple"] = (
    "from typing import NamedTuple\n"
    "class M(NamedTuple):\n    a: int\n    def __call__(self): return {}\nm = M(1)"
)


@pytest.mark.parametrize("code", CHANGED.values(), ids=CHANGED)
def test_a_change_shows_and_the_same_again_does_not(code):
    first, second, again = (content_digest(made(code.format(each))) for each in (1, 2, 1))
    assert first != second
    assert first == again


def test_use_does_not_show():
    class Used:
        @functools.cached_property
        def property(self):
            return 1

        @functools.lru_cache  # noqa: B019
        def remembered(self):
            return 1

        @functools.singledispatchmethod
        def by_type(self, value):
            return 1

    class Both(enum.Flag):
        ONE = 1
        TWO = 2

    used = Used()
    before = content_digest(used), content_digest(Both.ONE)
    used.property, used.remembered(), used.by_type(1), Both.ONE | Both.TWO
    assert (content_digest(used), content_digest(Both.ONE)) == before


def test_short_tuples_are_told_apart_by_type_and_sign():
    values = [(1,), (1.0,), (True,), (0.0,), (-0.0,), ("1",), (None,), (1, 1), ((1,),)]
    assert len({content_digest(each) for each in values}) == len(values)
    assert content_digest((1, "a")) == content_digest([1, "a"])


def test_a_class_that_holds_a_lock_has_no_content():
    with pytest.raises(NoContent, match="lock"):
        content_digest(made("class M: own = threading.Lock()\nm = M()"))


READERS = {
    "package": "import own_package\ndef read(): return own_package.go()",
    "module of a package": "from own_package import part\ndef read(): return part.go()",
    "import": "def read():\n    import own_package.part as part\n    return part.go()",
    "import from": "def read():\n    from own_package.part import go\n    return go()",
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_the_files_of_an_own_package_count(reader, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for number in (1, 2, 1):
        for name in [each for each in sys.modules if each.startswith("own_package")]:
            monkeypatch.delitem(sys.modules, name)
        folder = tmp_path / "own_package"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("from .part import go\n")
        (folder / "part.py").write_text(f"def go(): return {number}\n")
        importlib.invalidate_caches()
        read = made(reader, "read")
        found.append(content_digest(read))
        read()  # it is imported now
        assert content_digest(read) == found[-1]
    assert found[0] != found[1]
    assert found[0] == found[2]
    for name in [each for each in sys.modules if each.startswith("own_package")]:
        monkeypatch.delitem(sys.modules, name)


def test_what_was_set_in_an_own_module_counts_where_it_is_read():
    own = types.ModuleType("own_settings")
    own.width, own.other = 1, 1

    def read():
        return own_settings.width  # noqa: F821

    read = types.FunctionType(read.__code__, {"own_settings": own, "__name__": "own_module"})
    before = content_digest(read)
    own.other = 2
    assert content_digest(read) == before
    own.width = 2
    assert content_digest(read) != before


def test_a_plugin_of_the_name_of_an_installed_module_is_the_users(tmp_path):
    file, found = tmp_path / "statistics.py", []
    for number in (1, 2):
        file.write_text(
            f"WEIGHT = {number}\ndef read(): return WEIGHT\n"
            f"class M:\n    weight = {number}\n    def __call__(self): return self.weight\n"
        )
        plugin = runpy.run_path(str(file), run_name="statistics")
        found += [content_digest(plugin["read"]), content_digest(plugin["M"]())]
    assert len(set(found)) == 4


def test_an_installed_package_counts_by_its_version_or_its_files(tmp_path):
    """Without a version, as where its files were copied."""
    folder, found = tmp_path / "site-packages", []
    (folder / "installed").mkdir(parents=True)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import installed; "
        "from recast_probe.content.digest import content_digest; "
        "print(content_digest(installed.score), content_digest(installed.Metric()))"
    )
    for number in (1, 2):
        (folder / "installed" / "__init__.py").write_text(
            f"WEIGHT = {number}\ndef score(): return WEIGHT\n"
            "class Metric:\n    def __call__(self): return score()\n"
        )
        run = subprocess.run(
            [sys.executable, "-B", "-W", "ignore", "-c", code, str(folder)],
            capture_output=True,
            text=True,
            check=True,
        )
        found += run.stdout.split()
    assert len(set(found)) == 4


def test_keys_that_are_no_text_are_described_as_what_they_are():
    assert described({"1": "a"}) == {"1": "a"}
    assert described({2: "b", 1: {"c": None}}) == {
        "is": "mapping",
        "items": [[1, {"c": None}], [2, "b"]],
    }
    assert described({1: 0, "1": 0})["items"] == [["1", 0], [1, 0]]


def test_the_order_of_a_set_does_not_show():
    """Members lead back to their class, and texts are hashed otherwise in each process."""
    code = (
        "import enum\nfrom recast_probe.content.digest import content_digest\n"
        "class Colour(enum.Enum):\n    RED = 1\n    BLUE = 2\n    GREEN = 3\n"
        "    def first(self): return Colour.RED\n"
        "print(content_digest([{*Colour}, {'a', 'b', ('c', 1)}]))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(found) == 1


def test_what_nnsight_hangs_on_built_in_classes_does_not_show():
    code = (
        "from recast_probe.content.digest import content_digest\n"
        "before = content_digest(object)\nimport nnsight\n"
        "assert hasattr(object, 'save')\nassert content_digest(object) == before"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_a_function_that_uses_a_probe_is_the_same_after_a_run():
    probe = rp.Probe.tiny("flux-kontext")

    def metric(image):
        return probe.layout(image).total

    before = content_digest(metric)
    probe.generate(tiny.tiny_image(), "fox", steps=1, progress=False)
    assert content_digest(metric) == before
    with torch.no_grad():
        next(probe.pipe.transformer.parameters()).add_(1)
    assert content_digest(metric) != before
