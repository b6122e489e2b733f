"""What any value is, by content: the same digest for the same content, in every process.

Two values of equal digest do the same in a run: tensors, arrays and pictures by their numbers,
functions by their code and what they close over, objects by class and attributes.
"""

from __future__ import annotations

import copyreg
import datetime
import hashlib
import types
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cached_property, lru_cache
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.content.class_digest import class_digest, name_of, versioned
from recast_probe.content.code_digest import (
    code_digest,
    globals_of,
    imports_of,
    is_installed_class,
    is_installed_function,
    source_of,
    version_of,
)
from recast_probe.content.module_content import BOOKKEEPING, ModuleContents, State, own_config
from recast_probe.content.tensor_digest import has_content, tensor_content
from recast_probe.errors import InputError

SIMPLE = (bool, int, float, str, type(None))
SIMPLE_TYPES = frozenset(SIMPLE)
_BY_REPR = (
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(None),
    type(...),
    range,
    slice,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
)
_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer)
_FOR_USE = (torch.Tensor, torch.Generator, Image.Image, PurePath)
# what functools.singledispatch remembers of its calls
_DISPATCHED = ("_clear_cache", "cache_token", "dispatch_cache")
# whose objects also remember where they came from
_LIBRARIES = ("accelerate", "diffusers", "peft", "transformers")
# a back reference, or a mark of a library's loader
_TENSOR_BOOKKEEPING = {"module", "_is_param", "_is_hf_initialized", "requires_grad"}


def _text_digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


_short_digest = lru_cache(maxsize=2**16)(_text_digest)


@lru_cache(maxsize=2**14)
def _name_digest(name: str) -> bytes:
    """As of any text, for names, of which few are met very often."""
    return _text_digest(f"str {name}")


class NoContent(InputError):  # noqa: N818 - says what is the case
    """A value that cannot be told from another one by what it holds."""


def _source(module: str, file: str | None = None) -> str:
    try:
        return source_of(module, file)
    except OSError as error:
        raise NoContent(f"the file of the module {module} ({error})") from error


class Contents:
    """Digests of values; those met before are looked up, so it serves one moment only.

    Args:
        modules: names of modules that are known otherwise; as values they enter by name.
    """

    def __init__(self, modules: Mapping[int, str] | None = None) -> None:
        self.modules = dict(modules or {})
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._open: list[int] = []
        self._classes: dict[type, bytes] = {}

    def __call__(self, value: Any) -> bytes:
        """SHA-256 of a value, 32 bytes.

        Raises:
            NoContent: it, or something in it, has no content; the message names it.
        """
        kind = type(value)
        if kind in SIMPLE_TYPES:
            text = f"{kind.__name__} {value if kind is str else repr(value)}"
            return _short_digest(text) if len(text) < 200 else _text_digest(text)
        if kind is tuple and len(value) < 5 and SIMPLE_TYPES.issuperset(map(type, value)):
            text = repr(value)  # 1, 1.0 and True are equal, and so are 0.0 and -0.0
            if len(text) < 200:
                return _short_tuple_digest(text, value)
        known = self._known.get(id(value))
        if known is not None:
            return known[1]
        if kind in _BY_REPR:
            return self._by_repr(value)
        if id(value) in self._open:  # a cycle: how far back it leads
            return self.of("cycle", len(self._open) - self._open.index(id(value)))
        self._open.append(id(value))
        try:
            digest = self._digest(value)
        except RecursionError:
            raise NoContent(f"{name_of(type(value))} is nested too deeply") from None
        finally:
            self._open.pop()
        self._known[id(value)] = (value, digest)
        return digest

    def of(self, kind: str, *values: Any) -> bytes:
        """Digest of a kind of thing with these parts."""
        return self.join(kind, [self(value) for value in values])

    @staticmethod
    def join(kind: str, digests: Iterable[bytes]) -> bytes:
        """Digest of a kind of thing whose parts have these digests, in this order."""
        digest = hashlib.sha256(kind.encode("utf-8", "surrogatepass") + b"\0")
        for each in digests:
            digest.update(each)
        return digest.digest()

    def named(self, kind: str, parts: Mapping[Any, Any]) -> bytes:
        """Digest of named parts; their order does not count. An error says which part it was."""
        found = []
        for name, part in parts.items():
            try:
                own = _name_digest(name) if type(name) is str else self(name)
                found.append(own + self(part))
            except NoContent as error:
                raise NoContent(f"{name}: {error}") from None
        return self.join(kind, sorted(found))

    def _digest(self, value: Any) -> bytes:
        if id(value) in self.modules:
            return self.of("module", self.modules[id(value)])
        if isinstance(value, State):
            return self.join("state", [self.class_(value.made), self.named("", value.attributes)])
        if isinstance(value, torch.nn.Module):
            return ModuleContents(self, {"": value}).digest()
        if isinstance(value, type):
            return self.class_(value)
        made: Any = type(value)
        if hasattr(made, "content_facts"):
            return self.of("facts", name_of(made), value.content_facts())
        if isinstance(value, Enum):
            kind = versioned(made) if is_installed_class(made) else made
            return self.of("enum", kind, value.name, value.value)
        held = self._held(value)
        if held is None:
            return self._code(value) or self._object(value)
        if is_installed_class(made):
            return held
        # these remember how they were used
        own = {} if isinstance(value, _FOR_USE) else self.attributes(value) or {}
        return self.join("object", [self.class_(made), held, self.named("attributes", own)])

    def _held(self, value: Any) -> bytes | None:
        """Digest of what a container, a number or a text holds, whatever its class; None for
        anything else."""
        if isinstance(value, list | tuple):
            return self.of("sequence", *value)
        if isinstance(value, dict | Mapping):
            return self.named("mapping", value)
        if isinstance(value, torch.Tensor):
            return self.tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            return self._array(value)
        if isinstance(value, Image.Image):
            return self._picture(value)
        if isinstance(value, torch.Generator):
            return self.of("generator", str(value.device), value.get_state())
        if isinstance(value, PurePath):
            return self.of("path", str(value))
        if isinstance(value, set | frozenset):
            # each by itself: what was met before depends on their order, which is another each time
            return self.join("set", sorted(Contents(self.modules)(each) for each in value))
        return self._by_repr(value) if isinstance(value, _BY_REPR) else None

    @staticmethod
    def _by_repr(value: Any) -> bytes:
        made: Any = type(value)
        kind = next(each for each in made.__mro__ if each in _BY_REPR)
        # not as a user's class may write itself
        show: Any = repr if is_installed_class(made) else kind.__repr__
        text = f"{kind.__name__} {kind.__str__(value) if kind is str else show(value)}"
        return _short_digest(text) if len(text) < 200 else _text_digest(text)

    def tensor(self, value: torch.Tensor) -> bytes:
        """Digest of a tensor; of a tensor subclass, through the tensors it is made of."""
        if type(value) in _PLAIN_TENSORS:
            if not has_content(value):
                raise NoContent(
                    f"a tensor {tuple(value.shape)} on {value.device} ({value.layout}) whose "
                    "numbers are not in memory"
                )
            heading, data = tensor_content(value)
            digest = hashlib.sha256(f"tensor {heading}\0".encode())
            digest.update(data)
            return digest.digest()
        kind = f"{name_of(type(value))} {value.dtype} {tuple(value.shape)}"
        if hasattr(value, "__tensor_flatten__"):
            names, context = value.__tensor_flatten__()
            inner = {name: getattr(value, name) for name in names}
            return self.of("tensors", kind, inner, context)
        own = {k: v for k, v in vars(value).items() if k not in _TENSOR_BOOKKEEPING}
        try:
            data = value.detach().as_subclass(torch.Tensor)
            return self.of("tensors", kind, data, own)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise NoContent(f"a tensor of {name_of(type(value))} ({error})") from error

    def _array(self, value: Any) -> bytes:
        if isinstance(value, np.generic) and isinstance(value.item(), bool | int | float | str):
            return self(value.item())
        if isinstance(value, np.ma.MaskedArray):
            mask = np.ma.getmaskarray(value)
            return self.of("masked array", value.data, mask, value.fill_value)
        array = np.asarray(value)
        if array.dtype.hasobject:
            return self.of("array", array.shape, array.tolist())
        digest = hashlib.sha256(f"array {array.dtype.descr} {array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
        return digest.digest()

    def _picture(self, value: Image.Image) -> bytes:
        value.load()
        orientation, palette = value.getexif().get(0x0112), value.getpalette("RGB")
        facts = (value.mode, value.size, orientation, value.info.get("transparency"), palette)
        return self.of("picture", *facts, value.tobytes())

    def _code(self, value: Any) -> bytes | None:
        """Digest of a function of any kind; None for what is none."""
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self.of("method", value.__func__, value.__self__)
        if isinstance(value, types.CodeType):
            return self.join("code", [code_digest(value)])
        if isinstance(value, types.ModuleType):
            return self._python_module(value)
        if isinstance(value, staticmethod | classmethod):
            return self.of(type(value).__name__, value.__func__)
        if isinstance(value, property):
            return self.of("property", value.fget, value.fset, value.fdel)
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            if owner is None or isinstance(owner, types.ModuleType):
                return self.of("built in", versioned(value))
            return self.of("built in", value.__name__, owner)
        if isinstance(value, types.WrapperDescriptorType | types.MethodDescriptorType):
            return self.of("built in", name_of(value))
        wrapped = getattr(value, "__wrapped__", None)
        if isinstance(wrapped, types.FunctionType) and not hasattr(value, "__dict__"):
            return self.of("wrapped", name_of(type(value)), wrapped)
        if type(value).__name__ == "_lru_cache_wrapper":
            return self.of("cached", wrapped)
        return None

    def _function(self, value: types.FunctionType) -> bytes:
        module = value.__globals__.get("__name__")
        left_out = _DISPATCHED if module == "functools" else ()
        own = {n: v for n, v in vars(value).items() if n not in ("__wrapped__", *left_out)}
        parts: dict[str, Any] = {
            "defaults": value.__defaults__,
            "keyword defaults": value.__kwdefaults__,
            "attributes": own,
        }
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if name in left_out:
                continue
            try:
                parts[f"{name} of its surroundings"] = cell.cell_contents
            except ValueError:  # not filled yet
                parts[f"{name} of its surroundings"] = None
        if is_installed_function(value):
            parts["version"] = version_of(module) or None
        else:
            parts |= {f"global {name}": found for name, found in globals_of(value)}
            parts |= {f"import {name}": _source(name) for name in imports_of(value)}
        parts = {name: part for name, part in parts.items() if part is not None}
        return self.join("function", [code_digest(value.__code__), self.named("parts", parts)])

    def _python_module(self, value: types.ModuleType) -> bytes:
        file = getattr(value, "__file__", None)
        if file is None:
            return self.of("python module", value.__name__)
        return self.of("python module", value.__name__, _source(value.__name__, file))

    def class_(self, value: type) -> bytes:
        """Digest of a class."""
        return class_digest(value, self, self._classes)

    def _object(self, value: Any) -> bytes:
        made = type(value)
        if name_of(made) == "tokenizers.Tokenizer":
            # what comes before it is the truncation and padding of the last call
            return self.of("tokenizer", value.to_str().partition('"added_tokens"')[2])
        try:
            if self._has_own_state(made):
                return self._reduced(value)
            attributes = self.attributes(value)
        except (TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError) as error:
            raise NoContent(f"{name_of(made)} ({error})") from error
        if attributes is None:
            return self._reduced(value)
        return self.join("object", [self.class_(made), self.named("attributes", attributes)])

    @staticmethod
    def _has_own_state(made: type) -> bool:
        if made in copyreg.dispatch_table:
            return True
        own = ("__reduce__", "__reduce_ex__", "__getstate__")
        return any(getattr(made, name, None) is not getattr(object, name, None) for name in own)

    @staticmethod
    def attributes(value: Any) -> dict[str, Any] | None:
        """Attributes of an object, without what is only kept from an earlier use; None: it has no
        place for any."""
        slots = {name for each in type(value).__mro__ for name in _slots(each)}
        if not hasattr(value, "__dict__") and not slots:
            return None
        found = {name: getattr(value, name) for name in slots if hasattr(value, name)}
        found |= getattr(value, "__dict__", {})
        kept = [n for n in found if isinstance(getattr(type(value), n, None), cached_property)]
        if type(value).__module__.partition(".")[0] in _LIBRARIES:
            kept += BOOKKEEPING
        config = own_config(found.get("_internal_dict"))
        found = {name: each for name, each in found.items() if name not in kept}
        return found | {f"config {name}": each for name, each in config.items()}

    def _reduced(self, value: Any) -> bytes:
        """Through what pickle would write of an object, which is all that it holds."""
        reduce = copyreg.dispatch_table.get(type(value))
        try:
            state = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:  # pickling may raise anything
            raise NoContent(f"{name_of(type(value))} ({error})") from error
        if isinstance(state, str):
            return self.of("named", getattr(value, "__module__", ""), state, *self._made(value))
        made, arguments, *more = tuple(state)
        inside: list[Any] = [list(each) if isinstance(each, Iterator) else each for each in more]
        if isinstance(made, types.FunctionType) and not is_installed_function(made):
            inside.append(made)
        own = self._made(value)
        return self.of("reduced", versioned(type(value)), versioned(made), arguments, inside, *own)

    @staticmethod
    def _made(value: Any) -> list[type]:
        """The class of an object, where it is a user's and does what its code says."""
        made: Any = type(value)
        return [] if is_installed_class(made) else [made]


def _slots(made: type) -> Iterator[str]:
    """Names of the places that a class gives its objects, as they are to be asked for."""
    slots = vars(made).get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        if name.startswith("__") and not name.endswith("__"):
            yield f"_{made.__name__.lstrip('_')}{name}"
        elif name not in ("__dict__", "__weakref__"):
            yield name


@lru_cache(maxsize=2**14)
def _short_tuple_digest(text: str, value: tuple[Any, ...]) -> bytes:
    """Of a tuple of simple values, as in vocabularies, where the same come at every run."""
    return Contents().of("sequence", *value)


def content_digest(value: Any) -> str:
    """SHA-256 (hexadecimal) of what a value is; see this module's first lines.

    Raises:
        NoContent: an InputError that names what has no content, such as a running generator, an
            open file, or a tensor on the meta device.
    """
    return Contents()(value).hex()
