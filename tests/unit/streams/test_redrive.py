"""A letter's record as it goes out again."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from schemas.letter import DeadLetter, Stage, payload, sink_letter_id
from schemas.topic import topics
from streams.redrive import again, redrive_event_id

RUN = UUID(int=7)
TOPICS = topics("t", partitions=4)


def letter(headers: list[tuple[str, bytes | None]]) -> DeadLetter:
    return DeadLetter.model_validate(
        {
            "id": sink_letter_id(TOPICS.events.name, 0, 7, key=b"k", value=b"v"),
            "stage": Stage.SINK,
            "reason": "undecodable",
            "message": "no JSON",
            "failed_at": datetime(2025, 1, 10, tzinfo=UTC),
            "event_id": "e",
            "attempts": 2,
            "topic": TOPICS.events.name,
            **payload(b"v", limit_bytes=100_000, key=b"k", headers=headers),
        }
    )


def test_headers_go_out_as_they_came_but_for_ours_and_for_names_that_are_no_text() -> None:
    long = "n" * 1_500
    dead = letter(
        [
            ("a", None),
            ("till-event", b"e"),
            ("till-run", b"r"),
            ("\udcff", b"x"),
            (long, b""),
            ("\u00e9", b"\xff"),
            ("a", b"2"),
        ]
    )

    record = again(dead, TOPICS, run_id=RUN, attempt=3)

    kept: list[tuple[str, bytes | None]] = [("a", None), (long, b""), ("\u00e9", b"\xff"), ("a", b"2")]
    assert record.headers[:4] == kept
    assert dict(record.headers[4:]) == {
        "till-event": redrive_event_id(dead.id, 3).encode(),
        "till-run": str(RUN).encode(),
        "till-attempt": b"3",
    }
    assert (record.key, record.value, record.event_id) == (b"k", b"v", redrive_event_id(dead.id, 3))
