"""The content of code: what a function or a class does, without where it was written."""

from __future__ import annotations

import dis
import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec, resolve_name
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from recast_probe._utils.optional import PACKAGES

_KNOWN: dict[int, tuple[CodeType, bytes]] = {}


def code_digest(code: CodeType) -> bytes:
    """SHA-256 of bytecode, constants and names; files, line numbers and comments do not count."""
    known = _KNOWN.get(
        id(code)
    )  # code never changes, and is kept here so that its id stays its own
    if known is not None:
        return known[1]
    digest = hashlib.sha256(code.co_code)
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    digest.update(repr((shape, names)).encode("utf-8", "surrogatepass"))
    for constant in code.co_consts:
        digest.update(_constant(constant))
    digest.update(code.co_exceptiontable)
    _KNOWN[id(code)] = (code, digest.digest())
    return _KNOWN[id(code)][1]


def _constant(value: Any) -> bytes:
    if isinstance(value, CodeType):
        return code_digest(value)
    if isinstance(value, tuple | frozenset):
        parts = [_constant(each) for each in value]
        # a frozenset has another order in every process
        text = b"".join(sorted(parts) if isinstance(value, frozenset) else parts)
    else:
        text = repr(value).encode("utf-8", "surrogatepass")
    return hashlib.sha256(f"{type(value).__name__} ".encode() + text).digest()


def functions_of(attribute: Any) -> list[FunctionType]:
    """The plain functions behind an attribute of a class: method, property, classmethod..."""
    if isinstance(attribute, FunctionType):
        return [attribute]
    if isinstance(attribute, property):
        found = (attribute.fget, attribute.fset)
        return [each for each in found if isinstance(each, FunctionType)]
    inner = (getattr(attribute, name, None) for name in ("__func__", "func", "__wrapped__"))
    return [each for each in inner if isinstance(each, FunctionType)]


def code_tree(function: FunctionType) -> bytes:
    """Code of a function and, where it is wrapped, of the functions that it closes over."""
    digest, seen, waiting = hashlib.sha256(), set(), [function]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        digest.update(code_digest(each.__code__))
        for cell in each.__closure__ or ():
            try:
                inside = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if isinstance(inside, FunctionType):
                waiting.append(inside)
    return digest.digest()


@lru_cache(maxsize=4096)
def _is_installed(name: str, file: str | None) -> bool:
    root = name.partition(".")[0]
    if file is None:  # the prompt, a notebook: the user's; an extension: installed
        known = root in sys.stdlib_module_names or root == _OWN.name
        return known and root not in ("__main__", "__mp_main__")
    return any(f"/{each}/" in file for each in _INSTALLING) or file.startswith(_PATHS)


_OWN = Path(__file__).parents[1]
_INSTALLING = ("site-packages", "dist-packages")
_STANDARD = tuple(f"{sysconfig.get_path(each)}/" for each in ("stdlib", "platstdlib"))
_PATHS = (*_STANDARD, *(f"{sysconfig.get_path(each)}/" for each in ("purelib", "platlib")))
_PATHS += (f"{_OWN}/",)


def is_installed(module: str | None, file: str | None = None) -> bool:
    """Whether a module belongs to a package with a version, and not to the user.

    Args:
        file: where it is known to lie; a user's file may have the name of an installed one.
    """
    found = sys.modules.get(module or "")
    return _is_installed(module or "", file or getattr(found, "__file__", None))


def is_installed_function(function: FunctionType) -> bool:
    """The same of a function, by the file that it was read from."""
    own = function.__globals__
    return is_installed(own.get("__name__") or function.__module__, own.get("__file__"))


@lru_cache(maxsize=4096)
def is_installed_class(made: Any) -> bool:
    """The same of a class, by the file that its first method was read from."""
    for each in vars(made).values():
        if isinstance(each, FunctionType) and each.__module__ == made.__module__:
            each = inspect.unwrap(each)
            if not each.__code__.co_filename.startswith("<"):  # generated, as by a dataclass
                return is_installed_function(each)
    return is_installed(made.__module__)


@lru_cache(maxsize=1024)
def _version(root: str) -> str:
    if root in (*PACKAGES, _OWN.name) or root in sys.stdlib_module_names:
        return ""
    try:
        return metadata.version(root)
    except metadata.PackageNotFoundError:
        names = sorted(set(_distributions().get(root, ())))
    file = getattr(sys.modules.get(root), "__file__", None)
    versions = [f"{name} {metadata.version(name)}" for name in names]
    return ", ".join(versions) or (_files_digest(file) if file and Path(file).is_file() else "")


_distributions = lru_cache(metadata.packages_distributions)


def version_of(module: str | None) -> str:
    """Version of the package that an installed module is of; "" for Python's own and for those
    whose version takes part in every result."""
    return _version((module or "builtins").partition(".")[0])


def source_of(module: str, file: str | None = None) -> str:
    """What decides what a module does: its version, or the content of the files of a user's.

    Args:
        file: where it lies, if that is known.

    Raises:
        OSError: a file cannot be read.
    """
    root = module.partition(".")[0]
    found = sys.modules.get(root)
    first = getattr(found, "__file__", None)
    if found is None:
        try:
            spec = find_spec(root)
        except (ImportError, ValueError):
            spec = None
        first = spec.origin if spec is not None and spec.has_location else None
    file = file or first
    if file is None or is_installed(module, file):
        return version_of(module)
    whole = first and _is_package(first) and not is_installed(root, first)
    return _files_digest(first if first and whole else file)


def _is_package(file: str) -> bool:
    return Path(file).name == "__init__.py"


def _files_digest(file: str) -> str:
    """Of a file, or of all Python files of the package that it begins."""
    path, digest = Path(file), hashlib.sha256()
    files = sorted(path.parent.rglob("*.py")) if _is_package(file) else [path]
    for each in files:
        inside = each.relative_to(path.parent)
        if not any(part.startswith(".") or part in _INSTALLING for part in inside.parts):
            facts = each.stat()
            own = _file_digest(each, facts.st_mtime_ns, facts.st_size)
            digest.update(f"{inside.as_posix()}\0".encode("utf-8", "surrogatepass") + own)
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _file_digest(path: Path, changed: int, size: int) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


@lru_cache(maxsize=4096)
def _names_read(code: CodeType) -> frozenset[tuple[str, ...]]:
    """Names from outside that code reads, each with the names of attributes read from it."""
    found: set[tuple[str, ...]] = set()
    chain: tuple[str, ...] = ()
    for each in _instructions(code):
        if each.opname in _LOADS_GLOBAL:
            chain = (each.argval,)
        elif chain and each.opname in _LOADS_ATTRIBUTE:
            chain += (each.argval,)
        elif each.opname not in _BESIDES:
            chain = ()
        if chain:
            found.add(chain)
    return frozenset(found)


_LOADS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME")
_LOADS_ATTRIBUTE = ("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")
_BESIDES = ("CACHE", "EXTENDED_ARG", "NOP")


def globals_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names outside a function that it reads, with what they stand for now, in order of name.

    Of a user's module, which may be changed at run time, also the attributes that are read.
    """
    for name, *more in sorted(_names_read(function.__code__)):
        if name not in function.__globals__:
            continue
        value = function.__globals__[name]
        yield name, value
        for attribute in more:
            if not isinstance(value, ModuleType) or attribute not in vars(value):
                break
            if is_installed(value.__name__, getattr(value, "__file__", None)):
                break
            name, value = f"{name}.{attribute}", vars(value)[attribute]
            yield name, value


@lru_cache(maxsize=4096)
def _imports(code: CodeType) -> frozenset[tuple[int, str]]:
    found: set[tuple[int, str]] = set()
    last: list[Any] = [0, 0]
    for each in _instructions(code):
        if each.opname == "IMPORT_NAME":  # after how many packages up it begins, and what it takes
            found.add((last[-2], each.argval))
        if each.opname not in _BESIDES:
            last = [*last[-1:], each.argval]
    return frozenset(found)


def imports_of(function: FunctionType) -> list[str]:
    """Full names of the modules that a function itself imports, in order."""
    package = function.__globals__.get("__package__") or ""
    found = _imports(function.__code__)
    return sorted(resolve_name("." * up + name, package) for up, name in found if package or not up)


@lru_cache(maxsize=256)
def names_set_in(made: type, methods: frozenset[str]) -> frozenset[str]:
    """Attributes that methods of a class store, and the methods and properties that these use."""
    found: set[str] = set()
    waiting, seen = set(methods), set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for function in _functions_named(made, name, name in found):
            for each in _instructions(function.__code__):
                if each.opname == "STORE_ATTR":
                    # a setter that was passed as a mere getter counts after all
                    waiting |= {each.argval} - found
                    found.add(each.argval)
                elif each.opname in _LOADS_ATTRIBUTE:
                    waiting |= {each.argval} - seen
    return frozenset(found)


def _functions_named(made: type, name: str, stored: bool) -> Iterator[FunctionType]:
    for cls in made.__mro__:
        attribute = vars(cls).get(name)
        setter = [] if stored or not isinstance(attribute, property) else [attribute.fset]
        yield from (inspect.unwrap(f) for f in functions_of(attribute) if f not in setter)


def _instructions(code: CodeType) -> Iterator[dis.Instruction]:
    """Of code and of the functions and comprehensions inside it."""
    yield from dis.get_instructions(code)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
