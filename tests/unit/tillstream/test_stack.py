from __future__ import annotations

from pathlib import Path

from schemas.topic import topics
from tillstream import stack, wiring
from tillstream.config import Role, load
from tillstream.embedded.state import Endpoints


def test_a_stack_has_one_worker_of_each_role_and_hands_every_setting_on(tmp_path: Path) -> None:
    flags = {"home": str(tmp_path), "sink.slice_events": "7", "monitor.lag_alert_s": "2m"}

    found = stack.options(load(flags, environ={"TILL_LOG_FORMAT": "json"}))

    assert [each.role for each in found.workers] == [role.value for role in Role]
    assert (found.kafka, found.postgres_dsn) == (None, None)
    for each in found.workers:
        assert each.argv[-3:] == ("tillstream", "worker", each.role)
        handed = dict(each.environment)
        assert handed.pop("TILL_HTTP_API_PORT", None) == ("0" if each.role == "api" else None)
        assert handed == {"TILL_SINK_SLICE_EVENTS": "7", "TILL_MONITOR_LAG_ALERT_S": "120.0", "TILL_LOG_FORMAT": "json"}
        again = load(environ={**handed, "TILL_HOME": str(tmp_path)}).settings
        assert (again.sink.slice_events, again.monitor.lag_alert_s, again.log.format) == (7, 120, "json")


def test_servers_of_ones_own_are_used_and_not_started(tmp_path: Path) -> None:
    variables = {"TILL_KAFKA_BOOTSTRAP": "broker:9092", "TILL_POSTGRES_DSN": "postgresql://u:p@h/d"}

    found = stack.options(load({"home": str(tmp_path)}, environ=variables))

    assert (found.kafka, found.postgres_dsn) == ("broker:9092", "postgresql://u:p@h/d")


def test_what_a_running_stack_tells_is_not_taken_for_servers_of_ones_own(tmp_path: Path) -> None:
    told = {"kafka.bootstrap": "127.0.0.1:5", "postgres.dsn": "postgresql://u:p@/d"}

    found = stack.options(load({"home": str(tmp_path)}, environ={}, stack=told))

    assert (found.kafka, found.postgres_dsn) == (None, None)


def test_settings_for_a_running_stack_point_to_its_servers(tmp_path: Path) -> None:
    settings = load({"home": str(tmp_path)}, environ={}).settings

    there = stack.at(settings, Endpoints(kafka="127.0.0.1:7", postgres_dsn="postgresql://u:p@/x"))

    assert there.kafka.bootstrap == "127.0.0.1:7"
    assert there.postgres.dsn.get_secret_value() == "postgresql://u:p@/x"
    assert there.sink == settings.sink


def test_the_monitor_watches_the_group_of_every_role_that_consumes() -> None:
    settings = load({"topic.prefix": "acme"}, environ={}).settings

    table = topics("acme")

    assert wiring.watched_groups(settings) == {
        "acme-sink": table.events.name,
        "acme-connectors": table.connector_state.name,
        "acme-letters": table.dead_letters.name,
    }


def test_the_clients_wait_is_longer_than_the_servers() -> None:
    timeouts = wiring.timeouts_of(load({"postgres.command_timeout_s": "5s"}, environ={}).settings)

    assert timeouts.lock_s <= timeouts.statement_s == 5 < timeouts.client_s
