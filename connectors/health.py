"""How a connector fares: its state, what fails now, what its last listing could not use."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice

from connectors.source import Progress, Skipped, Task
from schemas import metric
from schemas.errors import Fenced, TillError
from schemas.metric import Meter

LISTING = ""  # the key under which the listing itself fails; tasks have their own
_UNUSABLE = "no record of it could be used"
_UNUSABLE_HINT = "correct the connector's mapping and apply it: such files are read again then; or the files themselves"
_ODD_HINT = "correct the option `columns`, or leave out of it what the source does not have"
_SHOWN = 10  # problems that a status names; the logs have all


class State(StrEnum):
    """What a connector is doing."""

    STARTING = "starting"
    RUNNING = "running"
    DEGRADED = "degraded"  # something fails, and is tried again
    PAUSED = "paused"  # it needs somebody
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Status:
    """
    A connector's health as its runner sees it. `skipped` counts what the last listing could not use, by reason.

    `open_runs` are those that the run log knows of; `active` tasks are begun, `pending` ones are not. `left_behind` are
    awaits and threads of the source that were given up and do not end. `progress` is what the source is at that takes
    long, such as downloads.
    """

    state: State
    problems: tuple[str, ...]
    hint: str
    listed_at: datetime | None
    open_runs: int
    pending: int
    skipped: Mapping[str, int]
    active: int = 0
    left_behind: int = 0
    progress: tuple[Progress, ...] = ()


class Health:
    """Gathers what goes wrong, and forgets it once it goes right. `others` are problems that somebody else keeps."""

    def __init__(self, connector: str, meter: Meter) -> None:
        self._connector = connector
        self._meter = meter
        self._entered = State.STARTING
        self._failing: dict[str, TillError] = {}
        self._skipped: dict[tuple[str, str], str] = {}
        self._unusable: dict[str, str] = {}
        self._odd = ""  # what an operator should know of the object read last
        self._gone: set[str] = set()  # of those the ones that the last listing did not meet
        self.others: tuple[str, ...] = ()

    @property
    def state(self) -> State:
        """What the connector is doing now."""
        return State.DEGRADED if self._entered is State.RUNNING and self.problems() else self._entered

    @property
    def hint(self) -> str:
        """What to do about the first thing that fails."""
        return next(
            (exc.hint for exc in self._failing.values()),
            _UNUSABLE_HINT if self._unusable else _ODD_HINT if self._odd else "",
        )

    @property
    def skipped(self) -> dict[str, int]:
        """What the last listing could not use, by reason."""
        reasons: dict[str, int] = {}
        for _, reason in self._skipped:
            reasons[reason] = reasons.get(reason, 0) + 1
        return reasons

    def problems(self) -> list[str]:
        """What is wrong now, in words."""
        found = [str(exc) for exc in self._failing.values()]
        found += [f"{descriptor}: {problem}" for (descriptor, _), problem in self._skipped.items() if problem]
        found += filter(None, self.others)
        found += filter(None, [self._odd])
        found += islice(self._unusable.values(), _SHOWN)
        return found[:_SHOWN]

    def enter(self, state: State) -> None:
        """The connector is in another state now."""
        self._entered = state
        self.show()

    def fails(self, key: str, exc: TillError) -> None:
        """A task, or the listing, fails."""
        self._failing[key] = exc
        self.show()

    def works(self, key: str) -> None:
        """It went well, or at least on."""
        if self._failing.pop(key, None) is not None:
            self.show()

    def unusable(self, task: Task, cause: str = "") -> None:
        """No record of the task could be used. That is so until one can, or it is gone and others do well."""
        self._gone.discard(task.key)
        if cause or task.key not in self._unusable:
            self._unusable[task.key] = f"{task.descriptor}: {_UNUSABLE}{': ' if cause else ''}{cause}"
            self.show()

    def usable(self, task: Task, note: str = "") -> None:
        """A task was read to its end, and could be used; `note` is what an operator should know of it nevertheless."""
        key, odd = task.key, f"{task.descriptor}: {note}" if note else ""
        if odd != self._odd:
            self._odd = odd
            self.show()
        if self._unusable:
            for each in (key, *self._gone):
                self._unusable.pop(each, None)
            self._gone.clear()
            self.show()

    @property
    def fenced(self) -> bool:
        """Whether a newer owner has taken the connector over."""
        return any(isinstance(exc, Fenced) for exc in self._failing.values())

    def is_new(self, skipped: Skipped) -> bool:
        """Whether the listing before did not skip this for this reason."""
        return (skipped.descriptor, skipped.reason) not in self._skipped

    def listed(self, met: AbstractSet[str], skipped: Mapping[tuple[str, str], str]) -> None:
        """A listing went through: it met these tasks, and skipped these. What it did not meet no longer fails."""
        self._skipped = dict(skipped)
        self._gone = self._unusable.keys() - met
        self._failing = {key: exc for key, exc in self._failing.items() if key in met}
        self.show()

    def show(self) -> None:
        """Bring the state to the metrics."""
        now = self.state
        for state in State:
            labels = {"connector": self._connector, "state": state.value}
            self._meter.set(metric.CONNECTOR_STATE, float(state is now), **labels)
