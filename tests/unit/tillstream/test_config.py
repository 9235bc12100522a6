from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigError
from tillstream import config
from tillstream.config import all_settings, load
from tillstream.secret import allows


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _file(text: str, name: str = "till.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_flag_wins_over_a_variable_over_the_file_over_the_stack_over_the_default() -> None:
    _file(
        '[kafka]\nbootstrap="file:1"\nsession_timeout_s = "11s"\n[sink]\nslice_events = 11\n[topic]\nprefix = "file"\n'
    )
    variables = {"TILL_KAFKA_BOOTSTRAP": "variable:1", "TILL_SINK_SLICE_EVENTS": "22"}
    stack = {"kafka.bootstrap": "stack:1", "sink.slice_events": "33", "topic.prefix": "stack", "http.sink_port": "9000"}

    loaded = load({"kafka.bootstrap": "flag:1"}, environ=variables, stack=stack)

    assert loaded.settings.kafka.bootstrap == "flag:1"
    assert loaded.settings.sink.slice_events == 22
    assert loaded.settings.kafka.session_timeout_s == 11
    assert loaded.settings.topic.prefix == "file"
    assert loaded.settings.http.sink_port == 9000
    assert loaded.settings.monitor.interval_s == 5
    origins = loaded.origins
    assert origins["kafka.bootstrap"] == "--set"
    assert origins["sink.slice_events"] == "TILL_SINK_SLICE_EVENTS"
    assert origins["topic.prefix"] == "till.toml"
    assert origins["http.sink_port"] == "running stack"
    assert origins["monitor.interval_s"] == "default"


def test_every_problem_is_told_at_once_with_its_place_its_type_and_what_is_allowed() -> None:
    file = _file('[sink]\nslice_events = "many"\nslice_byte = 3\n[log]\nlevel = "loud"\n[nonsense]\nx = 1\n')
    variables = {"TILL_KAFKA_BOOTSTRAP": "nowhere", "TILL_KAFAK_BOOTSTRAP": "a:1"}

    with pytest.raises(ConfigError) as caught:
        load({"monitor.interval_s": "0"}, environ=variables, file=file)

    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[0] == "7 settings are wrong:"
    assert "till.toml: sink.slice_events: must be a whole number ≥ 1 ≤ 50000; got str 'many'" in lines
    assert "till.toml: sink.slice_byte: is not a setting; did you mean sink.slice_bytes?" in lines
    assert "till.toml: log.level: must be one of debug, info, warning, error; got str 'loud'" in lines
    assert "till.toml: nonsense.x: is not a setting" in lines
    assert "TILL_KAFKA_BOOTSTRAP: must be host:port, or several separated by commas; got str 'nowhere'" in lines
    assert "TILL_KAFAK_BOOTSTRAP: is not a setting; did you mean TILL_KAFKA_BOOTSTRAP?" in lines
    assert "--set: monitor.interval_s: must be a duration such as 30s or 5m > 0 ≤ 600; got str '0'" in lines


def test_a_wrong_secret_is_named_and_never_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={"TILL_POSTGRES_DSN": "mysql://root:hunter22@db"})

    assert "TILL_POSTGRES_DSN: must start with postgresql://; got str" in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_a_secret_is_refused_as_a_flag() -> None:
    with pytest.raises(ConfigError, match="flags are public; use TILL_POSTGRES_DSN") as caught:
        load({"postgres.dsn": "postgresql://u:hunter22@h/d"}, environ={})

    assert "hunter22" not in str(caught.value)


def test_nothing_that_shows_settings_shows_a_secret() -> None:
    loaded = load(environ={"TILL_POSTGRES_DSN": "postgresql://till:s3cr%21et@db/till?sslpassword=alsosecret"})

    shown = repr(loaded) + str(dict(enumerate(loaded.shown()))) + loaded.settings.model_dump_json()

    assert "s3cr" not in shown
    assert "alsosecret" not in shown
    assert ("postgres.dsn", "postgresql://till:***@db/till?sslpassword=***", "TILL_POSTGRES_DSN") in list(
        loaded.shown()
    )
    assert set(loaded.settings.secret_texts()) == {"alsosecret", "s3cr%21et", "s3cr!et"}


def test_production_refuses_failpoints() -> None:
    with pytest.raises(ConfigError, match="failpoints are refused while environment is production"):
        load(environ={"TILL_FAILPOINTS": "after_commit=kill", "TILL_ENVIRONMENT": "production"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("30s", 30), ("5m", 300), ("0.5h", 1800), ("12", 12), ("1.5", 1.5)]
)
def test_a_duration_has_its_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    assert load({"monitor.lag_alert_s": text}, environ={}).settings.monitor.lag_alert_s == seconds


def test_a_named_file_must_exist_and_the_usual_one_need_not() -> None:
    load(environ={})

    with pytest.raises(ConfigError, match=r"absent\.toml: there is no such file"):
        load(environ={"TILL_CONFIG": "absent.toml"})


def test_a_file_that_is_no_toml_is_told_like_any_other_problem() -> None:
    _file("[sink\n")

    with pytest.raises(ConfigError, match=r"till\.toml: cannot be read"):
        load(environ={})


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    loaded = load(environ={"TILL_KAFKA_BOOTSTRAP": ""})

    assert loaded.origins["kafka.bootstrap"] == "default"


def test_variables_of_the_test_suite_are_left_alone() -> None:
    load(environ={"TILL_TEST_KAFKA": "127.0.0.1:1", "TILL_CACHE": "/tmp"})


def test_the_home_of_the_environment_holds_and_is_absolute() -> None:
    assert load(environ={"TILL_HOME": "here"}).settings.home == Path.cwd() / "here"
    assert load(environ={"TILL_HOME": "~/x"}).settings.home == Path.home() / "x"


def test_every_setting_has_a_description_and_one_that_measures_has_its_unit_in_its_name() -> None:
    for setting in all_settings():
        assert setting.field.description, setting.key
        assert (setting.field.annotation is not float) or setting.key.endswith("_s"), setting.key
        assert setting.variable == config.variable_of(setting.key)


@pytest.mark.parametrize("name", ["TILL_SECRET_AXIS", "SFTP_PASS"])
def test_connectors_may_name_our_secrets_and_seed_004s_password_unless_told_otherwise(name: str) -> None:
    assert allows(load(environ={}).settings.secrets.names, name)
    assert not allows(load(environ={"TILL_SECRETS_ENV": "OTHER"}).settings.secrets.names, name)
