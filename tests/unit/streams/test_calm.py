from __future__ import annotations

import logging

import pytest

from streams.calm import Seldom, calm


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def line(message: str, level: int = logging.ERROR, *args: object) -> logging.LogRecord:
    return logging.LogRecord("aiokafka.conn", level, __file__, 1, message, args, None)


def test_line_of_a_kind_is_written_once_in_a_while_and_tells_what_was_left_out() -> None:
    clock = Clock()
    seldom = Seldom(10.0, clock)

    written = [seldom.filter(line("cannot connect to %s", logging.ERROR, node)) for node in range(5)]
    clock.now = 10.0
    again = line("cannot connect to %s", logging.ERROR, 7)

    assert written == [True, False, False, False, False]
    assert seldom.filter(again)
    assert again.getMessage() == "cannot connect to 7 (and 4 more like it)"


def test_lines_of_other_kinds_and_information_are_always_written() -> None:
    seldom = Seldom(10.0, Clock())

    assert seldom.filter(line("one"))
    assert seldom.filter(line("two"))
    assert all(seldom.filter(line("joined", logging.INFO)) for _ in range(3))


def test_calm_reaches_every_logger_of_the_library_once(caplog: pytest.LogCaptureFixture) -> None:
    loggers = [logging.getLogger("noisy"), logging.getLogger("noisy.inside"), logging.getLogger("noisyother")]

    calm("noisy")
    calm("noisy")

    assert [len(logger.filters) for logger in loggers] == [1, 1, 0]
    for _ in range(3):
        loggers[1].error("again")
    assert len(caplog.records) == 1
