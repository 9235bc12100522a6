from __future__ import annotations

import base64
import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillstream.logs import JsonFormatter, LogfmtFormatter, Redactor, configure, escaped

MOMENT = 1656682161.749  # 2022-07-01T13:29:21.749Z


def _record(message: str, severity: int = logging.INFO, /, **facts: object) -> logging.LogRecord:
    record = logging.LogRecord("connectors.runner", severity, __file__, 1, message, (), None)
    record.created = MOMENT
    record.facts = facts
    return record


def _line(message: str, severity: int = logging.INFO, /, **facts: object) -> str:
    return LogfmtFormatter(Redactor()).format(_record(message, severity, **facts))


def test_lines_are_those_of_seed_000() -> None:
    task = {"component": "scheduler", "provider": "example", "task-id": "ImRpcmVjdG9yeSI="}

    assert _line("Found 0 files", **task) == (
        'time="2022-07-01T13:29:21Z" level=info msg="Found 0 files"'
        ' component=scheduler provider=example task-id="ImRpcmVjdG9yeSI="'
    )
    assert _line("Install connector example", component="connector-manager", config="{}", provider="example") == (
        'time="2022-07-01T13:29:21Z" level=info msg="Install connector example"'
        ' component=connector-manager config="{}" provider=example'
    )
    assert _line("Error opening directory '/x'", logging.ERROR, component="scheduler").startswith(
        'time="2022-07-01T13:29:21Z" level=error msg="Error opening directory \'/x\'" component=scheduler'
    )


def test_the_component_is_the_loggers_name_where_nobody_says() -> None:
    assert _line("file read", rows=3).endswith('msg="file read" component=connectors.runner rows=3')


def test_a_files_name_cannot_forge_a_line() -> None:
    name = 'a.csv\ntime="2022" level=error msg="forged"\r\x1b[31m\u202e\u2028\x85'

    line = _line(f"Found {name}", file=name)

    assert line.splitlines() == [line]
    assert line.isprintable()
    assert r"\n" in line
    assert r"\x1b[31m\u202e\u2028\x85" in line
    assert 'msg="forged"' not in line


@given(st.text(), st.dictionaries(st.text(min_size=1), st.one_of(st.text(), st.floats(), st.none(), st.binary())))
def test_whatever_is_logged_stays_one_printable_line(message: str, facts: dict[str, object]) -> None:
    record = _record(message.replace("%", ""))
    record.facts = facts

    line = LogfmtFormatter(Redactor()).format(record)

    assert line.isprintable()
    assert json.loads(JsonFormatter(Redactor()).format(record))["level"] == "info"


def test_an_escaped_text_tells_what_it_was() -> None:
    assert escaped('a"b\\c\td') == r"a\"b\\c\td"
    assert escaped("naïve €") == "naïve €"


def test_facts_cannot_replace_the_head_of_a_line() -> None:
    assert _line("file read", level="fatal", msg="other", time="never") == (
        'time="2022-07-01T13:29:21Z" level=info msg="file read" component=connectors.runner'
    )


def test_an_exception_is_told_on_the_same_line_without_the_secret_it_holds() -> None:
    redactor = Redactor(["hunter22"])
    try:
        raise ValueError("cannot log in with hunter22\nlevel=error")
    except ValueError as exc:
        record = _record("sink failed")
        record.exc_info = (type(exc), exc, exc.__traceback__)

    logfmt = LogfmtFormatter(redactor).format(record)
    as_json = json.loads(JsonFormatter(redactor).format(record))

    assert logfmt.isprintable()
    assert 'error="ValueError: cannot log in with ***' in logfmt
    assert "test_logs.py" in logfmt
    assert as_json["error"] == "ValueError: cannot log in with ***\nlevel=error"
    assert "hunter22" not in logfmt + str(as_json)


SECRET = 'p@s"s\\wörd/1'


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        json.dumps(SECRET),
        repr(SECRET),
        f"postgresql://u:{quote(SECRET, safe='')}@h/d",
    ],
)
def test_a_secret_is_removed_in_every_spelling_from_message_facts_and_json(spelling: str) -> None:
    redactor = Redactor([SECRET])
    record = _record(f"login {spelling}", dsn=spelling, nested={"password": spelling})

    for line in (LogfmtFormatter(redactor).format(record), JsonFormatter(redactor).format(record)):
        assert "***" in line
        for known in (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode(), "wörd"):
            assert known not in line


def test_json_stays_json_when_a_secret_looks_like_json() -> None:
    redactor = Redactor(["12345", "true", "level"])

    body = json.loads(JsonFormatter(redactor).format(_record("level 12345", pin=12345, good=True, other=7)))

    assert body["msg"] == "*** ***"
    assert body["pin"] == "***"
    assert body["good"] == "***"
    assert body["other"] == 7


def test_a_secret_too_short_to_hide_anything_mangles_nothing() -> None:
    assert Redactor(["a", ""]).redact("a bank") == "a bank"


@pytest.fixture
def _root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    libraries = {
        name: logging.getLogger(name).level for name in ("aiokafka", "faust", "mode", "asyncio", "aiohttp.access")
    }
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in libraries.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("_root")
def test_a_configured_root_logger_writes_one_kind_of_line_and_hears_libraries_from_warnings_on() -> None:
    stream = io.StringIO()

    configure(level="info", format_="logfmt", redactor=Redactor(["hunter22"]), stream=stream)
    logging.getLogger("sinks.postgres").info("connected", extra={"facts": {"dsn": "hunter22"}})
    logging.getLogger("sinks.postgres").debug("unheard")
    logging.getLogger("aiokafka.client").info("unheard")
    logging.getLogger("aiokafka.client").warning("heard %s", "hunter22")

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith('level=info msg="connected" component=sinks.postgres dsn="***"')
    assert 'level=warning msg="heard ***" component=aiokafka.client' in lines[1]


@pytest.mark.usefixtures("_root")
def test_what_nobody_caught_is_a_line_like_any_other_and_hides_its_secret() -> None:
    stream = io.StringIO()
    configure(level="info", format_="logfmt", redactor=Redactor(["hunter22"]), stream=stream)

    def fail() -> None:
        password = "hunter22"
        raise ValueError(f"refused {password}")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as exc:
        sys.excepthook(ValueError, exc, exc.__traceback__)

    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert all('level=critical msg="nobody caught an error"' in line and "refused ***" in line for line in lines)
    assert "refused hunter22" not in stream.getvalue()
