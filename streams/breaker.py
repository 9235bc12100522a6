"""
The circuit breaker of one partition: when everything dies, the fault is ours or the schema's, not the records'.

    closed ── 100 deaths in a row, or 5 % of the last 1 000 ──▶ open ── after a pause ──▶ half-open
       ▲                                                        ▲                            │
       └──────────────── a record passes ───────────────────────┼────────────────────────────┤
                                                                └──── it dies too, longer ───┘

Pure: time comes in as an argument, nothing waits here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

DEATHS_IN_A_ROW = 100  # docs/decisions/003, as the rest below
WINDOW = 1_000
DEATH_RATE = 0.05
FIRST_PAUSE_S = 10.0
LONGEST_PAUSE_S = 300.0


@dataclass(slots=True)
class Breaker:
    """Deaths of one partition. `pause_s` doubles each time the half-open probe dies."""

    first_pause_s: float = FIRST_PAUSE_S
    in_a_row: int = 0
    pause_s: float = field(init=False)
    opened_at_s: float | None = None
    _window: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _window_deaths: int = 0
    _probing: bool = False

    def __post_init__(self) -> None:
        self.pause_s = self.first_pause_s

    @property
    def is_open(self) -> bool:
        """Whether no further record may die for now."""
        return self.opened_at_s is not None

    def remaining_s(self, now_s: float) -> float:
        """Seconds until one more record may die; 0 when it may now."""
        if self.opened_at_s is None:
            return 0.0
        return max(0.0, self.opened_at_s + self.pause_s - now_s)

    def half_open(self) -> None:
        """Let one record through: the next `passed` closes the breaker, the next `died` opens it for longer."""
        self.opened_at_s = None
        self._probing = True

    def passed(self, records: int = 1) -> None:
        """So many records went through."""
        if records <= 0:
            return
        if self._probing:
            self._forget()
        self.in_a_row = 0
        for _ in range(min(records, WINDOW)):
            self._push(died=False)

    def died(self, now_s: float) -> None:
        """One record died; the breaker may be open afterwards."""
        self.in_a_row += 1
        self._push(died=True)
        if self._probing:
            self._probing = False
            self.pause_s = min(self.pause_s * 2, LONGEST_PAUSE_S)
            self.opened_at_s = now_s
        elif self.in_a_row >= DEATHS_IN_A_ROW or self._too_many():
            self.opened_at_s = now_s

    def _too_many(self) -> bool:
        return len(self._window) == WINDOW and self._window_deaths >= DEATH_RATE * WINDOW

    def _push(self, *, died: bool) -> None:
        if len(self._window) == WINDOW and self._window[0]:
            self._window_deaths -= 1
        self._window.append(died)
        self._window_deaths += died

    def _forget(self) -> None:
        self._probing = False
        self.pause_s = self.first_pause_s
        self._window.clear()
        self._window_deaths = 0
