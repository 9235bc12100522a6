"""
Adapters in Python: for a provider whose records no table of columns describes (seed 002).

    class AcmeAdapter:
        def facts(self, record): return PaymentFacts(...)    # or None: the record is left out

A connector names one as `adapter: acme` (an entry point of the group `tillstream.adapters`) or as
`adapter: acme_adapters.bank:AcmeAdapter`, if the worker's settings allow that module. What a class does with a record
is judged as everything is; what it raises rejects the record, and never ends a worker.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from pydantic import ValidationError

from connectors.record import PaymentFacts, clean
from schemas.errors import RecordRejected, SourceMisconfigured

ENTRY_POINTS = "tillstream.adapters"
NAME = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*|[A-Za-z0-9_.-]{1,100}", re.ASCII
)


@runtime_checkable
class Adapter(Protocol):
    """Knows what a provider's records say. It is made without arguments, once for each task."""

    def facts(self, record: Mapping[str, object]) -> PaymentFacts | None:
        """
        What the record says about a payment; None leaves it out, as filtered.

        Raises:
            RecordRejected: with a reason. Anything else rejects it too, as `adapter_error`.
        """
        ...


class Adapters:
    """The adapters that this worker may use: those that packages offer, and classes of the allowed modules."""

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules = tuple(modules)

    def make(self, name: str) -> Adapter:
        """
        A new instance of the adapter of this name.

        Raises:
            SourceMisconfigured: pause; it is not allowed, not there, or no adapter.
        """
        try:
            adapter = self._class(name)()
        except SourceMisconfigured:
            raise
        except Exception as exc:  # a stranger's module may fail in any way, and must not end a worker
            raise SourceMisconfigured(
                f"adapter {name!r} cannot be used: {type(exc).__name__}{_place(exc)}",
                hint="mend or install the package that offers it",
            ) from exc
        if not isinstance(adapter, Adapter):
            raise SourceMisconfigured(f"adapter {name!r} has no method `facts`")
        return adapter

    # Any: whatever a stranger's module offers
    def _class(self, name: str) -> type[object]:
        module, colon, attribute = name.partition(":")
        if not colon:
            points = [point for point in entry_points(group=ENTRY_POINTS) if point.name == name]
            if not points:
                raise SourceMisconfigured(
                    f"there is no adapter {name!r}", hint=f"no installed package offers it in the group {ENTRY_POINTS}"
                )
            found = points[0].load()
        else:
            if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in self._modules):
                raise SourceMisconfigured(
                    f"adapter {name!r} is not allowed here",
                    hint=f"add {module!r} to the setting connector.adapter_modules of the workers",
                )
            found = getattr(import_module(module), attribute)
        if not isinstance(found, type):
            raise SourceMisconfigured(f"adapter {name!r} is no class")
        return found


def judged(adapter: Adapter, record: Mapping[str, object]) -> PaymentFacts | None:
    """
    What an adapter says of a record, if it is what may be said.

    Raises:
        RecordRejected: the adapter's own reason, or `adapter_error`.
    """
    try:
        facts = adapter.facts(record)
        if facts is None:
            return None
        payload = facts.payload("provider")  # the wire's own model judges it
        for text in (facts.reference, facts.parent_reference, facts.scheme, facts.raw):
            clean(text or "")
    except RecordRejected:
        raise
    except ValidationError as exc:
        wrong = ", ".join(sorted({".".join(map(str, error["loc"])) or error["type"] for error in exc.errors()}))
        raise RecordRejected("adapter_error", f"the adapter's facts do not hold: {wrong}") from None
    except Exception as exc:  # a record that its author did not foresee is one bad record
        # not the error's text: it may hold what the record holds
        raise RecordRejected("adapter_error", f"the adapter failed: {type(exc).__name__}{_place(exc)}") from exc
    return facts._replace(effective_at=payload.effective_at)


def _place(exc: Exception) -> str:
    """Where in whose file it was raised."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
