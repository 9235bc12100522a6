from __future__ import annotations

from tillstream.health import Health


def test_a_process_is_ready_when_it_waits_for_nothing() -> None:
    health = Health()
    assert health.reasons() == {}

    health.wait("kafka", "no answer from 127.0.0.1:9092")
    health.wait("kafka", "still no answer")
    assert health.reasons()["kafka"].startswith("still no answer (since ")

    health.clear("kafka")
    assert health.reasons() == {}


def test_a_probe_is_asked_each_time() -> None:
    answers: list[str | None] = ["recovering", None]
    health = Health()
    health.probe("table", lambda: answers.pop(0))

    assert list(health.reasons()) == ["table"]
    assert health.reasons() == {}
