"""
Failpoints: named places where a test ends the process, so that "between the commit and the ack" is hit every time.

    TILL_FAILPOINTS="after_commit=kill@3;mid_bisect=kill"

`kill` is SIGKILL at the n-th passage (the first, if none is named), `stop` is SIGSTOP, `exit` leaves with status 70.
Off by default: an unarmed failpoint is one dictionary look-up. `arm` is refused in production.
"""

from __future__ import annotations

import os
import re
import signal
from dataclasses import dataclass

from schemas.errors import ConfigError

POINTS = (
    "after_claim",
    "while_listing",
    "after_read",
    "before_publish",
    "before_commit",
    "after_commit",
    "mid_bisect",
    "after_letter_ack",
    "after_publish",
    "before_checkpoint",
    "after_checkpoint",
    "before_cursor_edit",
    "after_cursor_edit",
    "after_slot_made",
    "after_slot_advanced",
    "state_before_mirror",
    "api_before_commit",
    "api_after_commit",
    "api_before_answer",
    "after_test_opened",
    "before_redrive_sent",
    "after_redrive_sent",
    "while_replaying",
    "after_request_taken",
    "after_run_opened",
    "before_run_closed",
    "after_run_closed",
    "before_run_ended",
    "after_run_ended",
)
EXIT_STATUS = 70

_SPEC = re.compile(r"([a-z_]+)=(kill|stop|exit)(?:@([1-9][0-9]{0,8}))?")


@dataclass(slots=True)
class _Armed:
    action: str
    passages_left: int


_armed: dict[str, _Armed] = {}


def arm(spec: str, *, production: bool = False) -> None:
    """
    Arm the failpoints that `spec` names; an empty one disarms all.

    Raises:
        ConfigError: an unknown name or action, or any failpoint in production. Disposition: pause.
    """
    _armed.clear()
    for part in filter(None, (item.strip() for item in spec.split(";"))):
        match = _SPEC.fullmatch(part)
        if production or not match or match.group(1) not in POINTS:
            why = (
                "failpoints are refused in production"
                if production
                else f"known points: {', '.join(POINTS)}; actions: kill, stop, exit"
            )
            raise ConfigError(f"TILL_FAILPOINTS: cannot arm {part!r}: {why}")
        _armed[match.group(1)] = _Armed(match.group(2), int(match.group(3) or 1))


def failpoint(name: str) -> None:
    """Pass the point `name`; the process may end here, if it is armed."""
    armed = _armed.get(name)
    if armed is None:
        return
    armed.passages_left -= 1
    if armed.passages_left == 0:
        if armed.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if armed.action == "exit":
            os._exit(EXIT_STATUS)
        os.kill(os.getpid(), signal.SIGSTOP)
