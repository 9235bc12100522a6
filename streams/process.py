"""
The shell of every worker process: event loop, signals, exit status, and a hard bound on how long stopping takes.

A library that hangs while it stops (aiokafka does, when the broker is away) or a handler that blocks the event loop
cannot keep the process: some seconds after the signal it is gone.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType

log = logging.getLogger(__name__)

EXIT_CLEAN = 0
EXIT_CRASH = 1
EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h; the watchdog uses it too
STOP_WITHIN_S = 9.0  # supervisors send SIGKILL after 10
_TASKS_S = 0.5  # for tasks that nobody awaited
_LAST_RESORT_S = 0.5
_ALIVE_EVERY_S = 5.0
_YOUNG_OBJECTS = 50_000  # of about 20 for each event in flight; CPython's 700 cost 23 µs per event (docs/decisions/010)


class Stop:
    """The wish to end the process: set by SIGTERM or SIGINT, or by whoever calls `request`."""

    def __init__(self, stop_within_s: float = STOP_WITHIN_S) -> None:
        self._stop_within_s = stop_within_s
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._armed = False

    @property
    def requested(self) -> bool:
        """Whether somebody wants the process to end."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return once somebody wants the process to end."""
        await self._event.wait()

    def request(self, status: int = EXIT_STUCK) -> None:
        """End the process: orderly, or after `stop_within_s` seconds at once and with `status`."""
        if not self._armed:
            self._armed = True
            hard = threading.Timer(self._stop_within_s, _leave_now, (status,))
            hard.daemon = True
            hard.start()
            # A thread in C, for the case that Python itself does not get to run.
            faulthandler.dump_traceback_later(self._stop_within_s + _LAST_RESORT_S, exit=True)
        self._loop.call_soon_threadsafe(self._event.set)

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as the wish to end."""
        # Not `loop.add_signal_handler`: this one runs also while a callback blocks the loop.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        log.info("signal received", extra={"facts": {"signal": signal.Signals(number).name}})
        self.request()


def run(main: Callable[[Stop], Awaitable[int]], *, stop_within_s: float = STOP_WITHIN_S, frozen_s: float = 0.0) -> int:
    """
    Run `main` to its end on a loop of its own (uvloop's, if it is installed), and return its status.

    With `frozen_s` a process whose interpreter stands still for so long ends itself, with every thread's place on its
    standard error: C code that never lets go of the interpreter (a regular expression gone wild) stops every thread of
    Python's, the watchdog too.

    `main` is to return soon after its `Stop` is requested. An exception out of it is logged, and the status is 1.
    Whatever is still running after that (threads, tasks that resist cancellation) ends with the process: then this call
    does not return.
    """
    _collect_less_garbage()
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    status = loop.run_until_complete(_guarded(main, stop_within_s, frozen_s))
    loop.run_until_complete(_cancel_rest())
    if [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]:
        _leave_now(status, quietly=True)
    faulthandler.cancel_dump_traceback_later()
    asyncio.set_event_loop(None)
    loop.close()
    return status


async def _guarded(main: Callable[[Stop], Awaitable[int]], stop_within_s: float, frozen_s: float) -> int:
    stop = Stop(stop_within_s)
    stop.listen()
    living = asyncio.create_task(_live(stop, frozen_s)) if frozen_s else None
    try:
        return await main(stop)
    except Exception:
        log.exception("the process crashed")
        return EXIT_CRASH
    finally:
        if living is not None:
            living.cancel()
            if not stop.requested:
                faulthandler.cancel_dump_traceback_later()


async def _live(stop: Stop, frozen_s: float) -> None:
    """Put the end off again and again, by a thread in C; from a stop on, that has its own bound."""
    while not stop.requested:
        faulthandler.dump_traceback_later(frozen_s, exit=True)
        await asyncio.sleep(min(_ALIVE_EVERY_S, frozen_s / 3))


async def _cancel_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=_TASKS_S)


def _collect_less_garbage() -> None:
    """What events are made of dies with the slice, without a collector; what was imported stays for ever."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415  not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _leave_now(status: int, *, quietly: bool = False) -> None:
    if not quietly:
        log.critical("stopping takes too long: leaving at once", extra={"facts": {"status": status}})
        faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
