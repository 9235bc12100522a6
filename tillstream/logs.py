"""
Log lines: one a record, `key=value` as in seed 000, or one JSON object.

    time="2022-07-01T13:29:21Z" level=info msg="Found 0 files" component=scheduler provider=example

A record's facts come in `extra={"facts": {…}}`. Whatever a message or a fact holds, a record stays one line: control
characters are escaped, so a file's name cannot forge a line. Registered secrets are removed from the finished line.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TextIO

from tillstream.escape import escaped
from tillstream.redaction import Redactor

# Source: logrus' text formatter, which wrote seed 000's lines: anything else is quoted.
_PLAIN = re.compile(r"[A-Za-z0-9\-._/@^+]+", re.ASCII)
logger = logging.getLogger(__name__)
_LIBRARIES = ("aiokafka", "asyncssh", "faust", "mode", "asyncio", "aiohttp.access", "uvicorn")


class LogfmtFormatter(logging.Formatter):
    """Seed 000's lines: time, level and msg first, then the facts by name."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end."""
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        message = escaped(self._redactor.redact(record.getMessage()))
        facts = {_key(name): self._redactor.redact(_text(value)) for name, value in facts_of(record).items()}
        tail = "".join(f" {name}={_quoted(facts[name])}" for name in sorted(facts))
        return f'time="{moment}" level={record.levelname.lower()} msg="{message}"{self._redactor.redact(tail)}'


class JsonFormatter(logging.Formatter):
    """The same, one JSON object a line, times to the microsecond."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        """One line without its end; always valid JSON."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        head = {"time": moment, "level": record.levelname.lower(), "msg": self._redactor.redact(record.getMessage())}
        facts = {self._redactor.redact(name): self._plain(value) for name, value in facts_of(record).items()}
        return json.dumps({**head, **facts})

    def _plain(self, value: object) -> object:
        """`value`, if JSON has it and it hides nothing, else its redacted text."""
        text = _text(value)
        redacted = self._redactor.redact(text)
        if redacted == text and (value is None or isinstance(value, bool | int | float)):
            return value
        return redacted


def configure(*, level: str, format_: str, redactor: Redactor, stream: TextIO | None = None) -> None:
    """
    Make the root logger write to `stream` (standard error) and to nothing else.

    Libraries are heard from their warnings on, unless `level` is debug. What nobody caught ends in the log too.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(redactor) if format_ == "json" else LogfmtFormatter(redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else logging.WARNING)
    # Python's own hooks print tracebacks as they are, with whatever an error quotes.
    sys.excepthook = lambda _, error, __: _uncaught(error)
    threading.excepthook = lambda given: _uncaught(given.exc_value)
    sys.unraisablehook = lambda given: _uncaught(given.exc_value)


def _uncaught(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        logger.critical("nobody caught an error", exc_info=error)


def facts_of(record: logging.LogRecord) -> dict[str, object]:
    """
    A record's facts by name. `component` is the logger's name where the record gives none.

    An exception adds `error` (its type and text) and `stack`, on the same line.
    """
    given = getattr(record, "facts", None)
    facts: dict[str, object] = {"component": record.name}
    if isinstance(given, Mapping):
        facts.update((str(name), value) for name, value in given.items() if name not in ("time", "level", "msg"))
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        facts.setdefault("error", f"{type(error).__name__}: {error}")
        facts["stack"] = "".join(traceback.format_exception(error)).strip()
    return facts


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else re.sub(r"[^A-Za-z0-9\-._/@^+]", "_", name) or "_"


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else f'"{escaped(text)}"'


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)
