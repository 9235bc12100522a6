"""
Paths into JSON: `$.payload.payment.entity.amount`, `$.items[0].id`, `$["odd name"]`. Nothing is searched, nothing run.

    path = "$" (".name" | "[index]" | '["name"]')+        name = letters, digits, _ and -
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_STEPS = 32
_STEP = re.compile(
    r"""\.(?P<name>[A-Za-z_][A-Za-z0-9_-]*) | \[(?P<index>\d{1,6})\] | \["(?P<quoted>[^"\\\]]{1,200})"\]""",
    re.VERBOSE | re.ASCII,
)


@dataclass(frozen=True, slots=True)
class JsonPath:
    """Where a value stands in a JSON object: names of members, and places in arrays."""

    steps: tuple[str | int, ...]

    @classmethod
    def parse(cls, text: str) -> JsonPath:
        """
        The path that `text` spells.

        Raises:
            ValueError: it is none; the text says where.
        """
        steps: list[str | int] = []
        at = 1
        while at < len(text):
            step = _STEP.match(text, at)
            if step is None or len(steps) == MAX_STEPS:
                raise ValueError(
                    f"{text!r} is no path from character {at + 1} on; one reads like $.payment.items[0].id"
                )
            index = step["index"]
            steps.append(int(index) if index else step["name"] or step["quoted"])
            at = step.end()
        if not steps or not text.startswith("$"):
            raise ValueError(f"{text!r} is no path; one reads like $.payment.items[0].id")
        return cls(tuple(steps))

    def of(self, record: object) -> object:
        """The value there; None where there is nothing."""
        for step in self.steps:
            if isinstance(step, str):
                if not isinstance(record, Mapping):
                    return None
                record = record.get(step)
            elif isinstance(record, Sequence) and not isinstance(record, str) and step < len(record):
                record = record[step]
            else:
                return None
        return record


def is_path(text: str) -> bool:
    """Whether a column's name is meant as a path."""
    return text.startswith(("$.", "$["))
