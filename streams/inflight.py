"""
What one partition has handed out and not yet finished, and how far it may be committed.

The committed offset of a group promises that everything before it is done. So only the contiguous finished prefix may
be committed, whatever the order in which slices finish (Kafka Connect's `SubmittedRecords` idea). Slices are tracked by
the range of offsets that they cover, never by counting: a log has holes from compaction, deletion and transactions, and
the ranges tile it all the same.

Pure bookkeeping: no Kafka, no clock, no threads.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


class NotContiguousError(Exception):
    """A slice does not begin where the one before it ended, so records would be skipped. A bug. Disposition: crash."""


@dataclass(slots=True, eq=False)
class Ticket:
    """
    One slice in flight.

    Tickets are told apart by identity: after a rewind, another slice may end at the same offset.
    """

    first_offset: int
    next_offset: int
    size_bytes: int
    acked: bool = False


class InFlight:
    """
    The slices of one partition between being handed out and being committed.

    `start` is where reading began, `position` the next offset to hand out, `done_to` the end of the finished prefix.
    `committed` is what the group is known to have committed, None if nothing. Nothing at or below it is offered for
    commit, so that our commits never move a group backwards.
    """

    def __init__(self, position: int, *, committed: int | None = None) -> None:
        self.start = position
        self.position = position
        self.committed = committed
        self.done_to = position
        self.unacked = 0
        self.size_bytes = 0
        self.acked_total = 0
        self.forgotten = False
        self._tickets: deque[Ticket] = deque()

    def track(self, first_offset: int, next_offset: int, size_bytes: int = 0) -> Ticket:
        """
        The ticket of a slice that is handed out now.

        Raises:
            NotContiguousError: it does not begin at `position`, or is empty. Disposition: crash.
        """
        if self.forgotten or first_offset != self.position or next_offset <= first_offset:
            state = "forgotten" if self.forgotten else f"at {self.position}"
            raise NotContiguousError(f"slice [{first_offset}, {next_offset}) of a partition that is {state}")
        ticket = Ticket(first_offset, next_offset, size_bytes)
        self._tickets.append(ticket)
        self.position = next_offset
        self.unacked += 1
        self.size_bytes += size_bytes
        return ticket

    def ack(self, ticket: Ticket) -> bool:
        """
        Take a finished slice back; False if that changes nothing.

        A slice acked before, or handed out before a rewind or a revocation, changes nothing.
        """
        if ticket.acked or ticket not in self._tickets:
            return False
        ticket.acked = True
        self.unacked -= 1
        self.size_bytes -= ticket.size_bytes
        self.acked_total += 1
        while self._tickets and self._tickets[0].acked:
            self.done_to = self._tickets.popleft().next_offset
        return True

    def holds(self, ticket: Ticket) -> bool:
        """Whether the slice still waits to be taken back."""
        return not self.forgotten and not ticket.acked and ticket in self._tickets

    def skip(self, next_offset: int) -> None:
        """Pass over offsets without a record for us: transaction markers, compacted batches, what was deleted
        unread.
        """
        self.ack(self.track(self.position, next_offset))

    def committable(self) -> int | None:
        """The offset after the contiguous finished prefix, or None if the group's committed offset need not move."""
        floor = self.start if self.committed is None else max(self.start, self.committed)
        return self.done_to if self.done_to > floor and not self.forgotten else None

    def committed_to(self, offset: int) -> None:
        """The broker has confirmed a commit. Only then: a commit that failed is offered again."""
        self.committed = offset

    def rewind(self, position: int) -> None:
        """
        Start again at `position`, because the log we were reading is gone (topic recreated, log truncated).

        What is in flight belongs to that log and is forgotten, and so is what the group had committed of it.
        """
        self._tickets.clear()
        self.start = self.position = self.done_to = position
        self.committed = None
        self.unacked = self.size_bytes = 0

    def forget(self) -> None:
        """Let the partition go: nothing of it may be acked or committed by us any more."""
        self._tickets.clear()
        self.unacked = self.size_bytes = 0
        self.forgotten = True
