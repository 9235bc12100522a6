"""
The error tree. A class exists where the pipeline does something different; the rest is a message.

    TillError
    ├── RecordRejected        reject   one record is bad: dead-letter it, go on
    ├── SourceError
    │   ├── SourceUnavailable retry    cannot be reached or listed now
    │   ├── SourceThrottled   retry    it asked us to slow down, and says for how long
    │   ├── SourceChanged     retry    the object changed while it was read: read it again
    │   ├── SourceBroken      retry    its code failed with what is none of ours: a bug of this source alone
    │   ├── SourceMisconfigured pause  will not work until somebody changes the configuration
    │   ├── SourceUnauthorised pause   it refuses our credentials, or the address we come from
    │   └── ChangesLost       pause    what changed in the meantime cannot be had any more: a backfill is needed
    ├── BrokerError
    │   ├── BrokerUnavailable retry    no acknowledgement within our deadline: the outcome is unknown
    │   └── DeadLetterUnavailable retry a letter is not durable yet, so its record is not done
    ├── SinkError
    │   ├── SinkUnavailable   retry    connection, deadlock, exhaustion, shutdown, read-only after a failover
    │   ├── SinkRefused       reject   the data cannot be stored: bisect down to the record
    │   ├── EventIdReused     reject   it names the records whose ids are other records' already
    │   ├── SinkUnclear       reject   an error nobody classified: bisect, reject only where the neighbours pass
    │   └── SinkMisconfigured pause    missing table or column, no permission, wrong password
    ├── Fenced                pause    a newer owner has taken over: stop writing
    ├── StackError            pause    a part of the embedded stack cannot run on this machine as it is
    │   └── StackBusy         pause    another process already runs the stack of this data directory
    ├── ConfigError           pause    settings or a connector's configuration are wrong, found before any I/O
    ├── NotFound              reject   an operator named what is not there
    ├── Conflict              reject   an operator asked for what the present state does not allow
    ├── PreconditionFailed    reject   what an operator changes is not what they saw any more
    └── TimedOut              retry    what was awaited did not happen within its deadline

Any other exception is a bug, and its disposition is *crash*: the process ends with a non-zero status.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum


class Disposition(StrEnum):
    """What the pipeline does next. Nothing but the error's class decides it."""

    RETRY = "retry"
    REJECT = "reject"
    PAUSE = "pause"
    CRASH = "crash"


class TillError(Exception):
    """
    Root of every error of ours: `code` is stable and a metric label, `hint` says what to do.

    `retry_after_s` is what the other side asks for before it is asked again; 0 where it asks for nothing.
    """

    code: str = "internal"
    disposition: Disposition = Disposition.CRASH
    hint: str = ""
    retry_after_s: float = 0.0

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint

    @property
    def retryable(self) -> bool:
        """Whether waiting can heal it, as the API tells it."""
        return self.disposition is Disposition.RETRY

    def retell(self, redact: Callable[[str], str]) -> None:
        """Say the same with what `redact` makes of its texts: a library or a server may have put a secret there."""
        self.args = tuple(redact(part) if isinstance(part, str) else part for part in self.args)
        self.hint = redact(self.hint)


class RecordRejected(TillError):
    """
    One record cannot become (part of) a payment. Disposition: reject.

    `code` names the reason (`missing_reference`, `invalid_amount`, …): stable, a metric label, a column of the
    letter list.
    """

    disposition = Disposition.REJECT
    hint = "correct the record at its source and send it again, or redrive the dead letter after a fix"

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        self.code = code
        super().__init__(message, hint=hint)


class SourceError(TillError):
    """The outside system, or our access to it, failed."""


class SourceUnavailable(SourceError):
    """The source cannot be reached or listed now. Disposition: retry."""

    code = "source_unavailable"
    disposition = Disposition.RETRY
    hint = "check that the source is up and reachable; reading resumes by itself"


class SourceThrottled(SourceError):
    """The source asked us to slow down. Disposition: retry."""

    code = "source_throttled"
    disposition = Disposition.RETRY
    hint = "lower the connector's rate limit if this repeats"

    def __init__(self, source: str, *, retry_after_s: float) -> None:
        self.source = source
        self.retry_after_s = retry_after_s
        super().__init__(f"{source} asks for {retry_after_s:.1f} s of silence")


class SourceChanged(SourceError):
    """The object changed while it was read; what was read of it does not count. Disposition: retry."""

    code = "source_changed"
    disposition = Disposition.RETRY
    hint = "write under a temporary name and rename when complete"


class SourceBroken(SourceError):
    """The source's code raised what is none of our errors: a bug, and its connector's alone. Disposition: retry."""

    code = "source_broken"
    disposition = Disposition.RETRY
    hint = "a bug in the source: the worker's log has its traceback"


class SourceMisconfigured(SourceError):
    """The source answers, but not to this configuration. Disposition: pause."""

    code = "source_misconfigured"
    disposition = Disposition.PAUSE
    hint = "correct the connector's configuration and resume it"


class SourceUnauthorised(SourceError):
    """The source refuses our credentials, or the address we come from. Disposition: pause."""

    code = "source_unauthorised"
    disposition = Disposition.PAUSE
    hint = "check the credentials, and whether the provider has this address on its list; then resume the connector"


class ChangesLost(SourceError):
    """
    The source no longer has all changes since the cursor, and going on would pass over some. Disposition: pause.

    A slot was dropped, made anew or overrun, or another server answers.
    """

    code = "changes_lost"
    disposition = Disposition.PAUSE
    hint = (
        "data may be missing: make slot and publication anew where they are gone, then raise the connector's "
        "`generation` by one: all rows are read again, and what is known of them changes nothing"
    )


class BrokerError(TillError):
    """Kafka did not do what was asked."""


class BrokerUnavailable(BrokerError):
    """No acknowledgement within our deadline; the records may or may not be in the log. Disposition: retry."""

    code = "broker_unavailable"
    disposition = Disposition.RETRY
    hint = "check the brokers; what was not acknowledged is sent again"


class DeadLetterUnavailable(BrokerError):
    """A dead letter could not be made durable, so its record stays undone. Disposition: retry."""

    code = "dead_letter_unavailable"
    disposition = Disposition.RETRY
    hint = "check the dead-letter topic: does it exist, may we write to it, is the broker up"


class SinkError(TillError):
    """PostgreSQL did not do what was asked. `sqlstate` is its code, empty where the client failed."""

    def __init__(self, message: str, *, sqlstate: str = "", hint: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message, hint=hint)


class SinkUnavailable(SinkError):
    """Infrastructure: waiting heals it. Disposition: retry."""

    code = "sink_unavailable"
    disposition = Disposition.RETRY
    hint = "check PostgreSQL; the same slice is applied again, nothing is dead-lettered"


class SinkRefused(SinkError):
    """Some record of the statement cannot be stored. Disposition: reject, after bisecting to it."""

    code = "sink_refused"
    disposition = Disposition.REJECT
    hint = "look at the dead letter's raw bytes; correct the record at its source"


class EventIdReused(SinkError):
    """
    Event ids of these records stand for other records already. Disposition: reject, each of them.

    `offsets` are the records'; there may be more, which the next try finds. Nothing of the call was stored.
    """

    code = "event_id_reused"
    disposition = Disposition.REJECT
    hint = (
        "an event id stands for one record for ever: find the client that gave it twice, or the source whose options"
        " changed; redriving the letter brings the record in under an id of its own"
    )

    def __init__(self, offsets: Iterable[int]) -> None:
        self.offsets = frozenset(offsets)
        super().__init__("the event id stands for another record already")


class SinkUnclear(SinkError):
    """An unclassified error: rejected only where the neighbours pass, else held. Disposition: reject."""

    code = "sink_unclear"
    disposition = Disposition.REJECT
    hint = "report the SQLSTATE: it deserves a class of its own"


class SinkMisconfigured(SinkError):
    """The database is not what the pipeline expects. Disposition: pause."""

    code = "sink_misconfigured"
    disposition = Disposition.PAUSE
    hint = (
        "restore the table, column, role or password named here, or run `till migrate`; consumption resumes by itself"
    )


class SinkRewound(SinkError):
    """
    The database holds less of a partition than this process has stored: it was restored. Disposition: crash.

    Going on would pass over the difference; a process that starts begins where the database stands.
    """

    code = "sink_rewound"
    disposition = Disposition.CRASH
    hint = "nothing to do where something starts the worker again, as `till up` does: it reads the difference again"


class Fenced(TillError):
    """A newer owner has taken over what this process writes. Disposition: pause."""

    code = "fenced"
    disposition = Disposition.PAUSE
    hint = "nothing to do: another worker goes on from the last checkpoint"


class StackError(TillError):
    """
    A part of the embedded stack (Java, Kafka, PostgreSQL, a process) cannot run as things are. Disposition: pause.
    """

    code = "stack"
    disposition = Disposition.PAUSE
    hint = "run `till doctor`: it names what is missing and how to mend it"


class StackBusy(StackError):
    """Another process runs what this one was about to run. Disposition: pause."""

    code = "stack_busy"
    hint = "stop it with `till down`, or give this stack a TILL_HOME of its own"


class ConfigError(TillError):
    """Settings or a connector's configuration are wrong. Disposition: pause."""

    code = "config"
    disposition = Disposition.PAUSE
    hint = "correct the keys named here"


class NotFound(TillError):
    """What an operator named is not there. Disposition: reject; nothing was changed."""

    code = "not_found"
    disposition = Disposition.REJECT
    hint = "list what there is, and name one of it"


class Conflict(TillError):
    """The present state does not allow what an operator asked. Disposition: reject; nothing was changed."""

    code = "conflict"
    disposition = Disposition.REJECT
    hint = "look at its state, and ask again when it allows it"


class PreconditionFailed(TillError):
    """Somebody changed it since the operator looked. Disposition: reject; nothing was changed."""

    code = "precondition_failed"
    disposition = Disposition.REJECT
    hint = "look at it again, and repeat the change if it is still wanted"


class TimedOut(TillError):
    """What was awaited did not happen within its deadline. Disposition: retry."""

    code = "timed_out"
    disposition = Disposition.RETRY
    hint = "see what is in its way, or wait longer"
