"""What is sent to workers: any value, with every probe in it to be opened anew where it arrives."""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recast_probe._utils.optional import need
from recast_probe.errors import InputError
from recast_probe.studies.store import differences

if TYPE_CHECKING:
    from recast_probe.probe import Probe


@dataclass(frozen=True)
class Sent:
    """A value as bytes.

    Attributes:
        content: to be read by `received`.
        devices: kinds of devices that the probes in it are on, such as {"cuda"}.
    """

    content: bytes
    devices: frozenset[str]


def sent(value: Any, what: str) -> Sent:
    """A value, functions and classes of the running script included, as bytes.

    A probe enters as how it was opened and its identity, not as its weights.

    Args:
        what: names the value where it cannot be sent.

    Raises:
        InputError: it cannot be sent; says what stands in the way.
    """
    base: Any = need("ray.cloudpickle", "Sending work to workers").Pickler
    devices: set[str] = set()
    # where nothing has imported it there is no probe to be found, and importing it takes seconds
    module = sys.modules.get("recast_probe.probe")
    probes = () if module is None else (module.Probe,)

    class Pickler(base):
        def reducer_override(self, each: Any) -> Any:
            if not isinstance(each, probes):
                return super().reducer_override(each)
            if each.reopen is None:
                raise InputError(
                    f"The probe of {each.name} was made of a pipeline that was built in this "
                    "process, and workers must open their own: use Probe.from_function(build), "
                    "Probe.from_pretrained or Probe.pocket in place of Probe(pipe)."
                )
            identity = each.identity()
            devices.add(identity["device"])
            return reopened, (each.reopen, identity)

    target = io.BytesIO()
    try:
        Pickler(target).dump(value)
    except InputError:
        raise
    except Exception as error:  # each kind of object refuses in its own way
        raise InputError(
            f"{what} cannot be sent to workers ({type(error).__name__}: {error}). Open files and "
            "models inside of it when it is called, or use engine='local'."
        ) from error
    return Sent(target.getvalue(), frozenset(devices))


def received(content: bytes) -> Any:
    """The value that `sent` made bytes of; opens its probes."""
    return pickle.loads(content)


def reopened(reopen: Callable[[], Probe], identity: Mapping[str, Any]) -> Probe:
    """The probe, opened again, if it still is the one with this identity."""
    probe = reopen()
    if other := differences(probe.identity(), identity):
        raise InputError(
            f"A worker opened another pipeline than that of the study ({', '.join(other)}). Change "
            "a pipeline in a function that builds it, and give that to Probe.from_function."
        )
    return probe
