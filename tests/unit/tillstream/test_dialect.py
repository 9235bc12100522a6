"""How the seeds describe connectors, in our own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from connectors.registry import BUILTIN
from schemas.errors import ConfigError
from tests.contract.example import examples
from tillstream.control import dialect
from tillstream.control.dialect import Plan
from tillstream.control.schedule import Schedule

ROOT = Path(__file__).parents[3]
SEED_004: dict[str, Any] = {
    "host": "sftp.axis.example",
    "port": 2222,
    "username": "bank",
    "password": "${env:AXIS}",
    "remotePath": "/upload",
    "filePattern": "AXIS_RECON_YYYYMMDD*.csv",
    "checksumExt": ".sha256",
    "schedule": "0 19 * * *",
    "timezone": "Asia/Kolkata",
}


def test_seed_004_becomes_an_sftp_connector_with_the_records_of_the_sample() -> None:
    wanted = dialect.of_seed_004("SFTP", "AXIS", SEED_004)
    options = dialect.configured(BUILTIN["sftp"], "AXIS", wanted.configuration)

    sample = yaml.safe_load((ROOT / "samples/sftp/axis/connector.yaml").read_text())["configuration"]
    given = {"host", "port", "username", "password", "host_key", "rest_s"}
    assert {key: value for key, value in options.items() if key not in given} == {
        key: value for key, value in sample.items() if key not in given
    }
    assert (wanted.kind, wanted.type, wanted.provider) == ("sftp", "BANK_SFTP", "AXIS")
    assert wanted.plan == Plan("0 19 * * *", "Asia/Kolkata", None)
    assert wanted.plan.over(None) == Schedule("0 19 * * *", "Asia/Kolkata", enabled=True)
    assert BUILTIN["sftp"].config.model_validate(options)
    assert examples("004")[0].command.count('"filePattern"') == 1


@pytest.mark.parametrize(("provider", "pattern"), dialect.PATTERNS.items())
def test_a_bank_that_is_known_needs_no_pattern(provider: str, pattern: str) -> None:
    options = dialect.configured(BUILTIN["sftp"], provider.lower(), {"host": "h", "username": "u"})

    assert options["pattern"] == pattern


def test_a_pattern_of_ones_own_says_nothing_about_what_is_in_the_files() -> None:
    wanted = dialect.of_seed_004("SFTP", "AXIS", {**SEED_004, "filePattern": "*.jsonl", "checksumRequired": False})

    options = dialect.configured(BUILTIN["sftp"], "AXIS", wanted.configuration)

    assert (options["pattern"], options["checksum"]) == ("*.jsonl", "off")
    assert "columns" not in options


@pytest.mark.parametrize(
    ("type_", "provider", "kind", "seed_003"),
    [
        ("SFTP", "HDFC", "sftp", "BANK_SFTP"),
        ("API", "Razorpay", "http_api", "PG_API"),
        ("API", "PAYU", "http_api", "PG_API"),
        ("API", "HDFC", "http_api", "BANK_API"),
    ],
)
def test_types_of_seed_004_are_those_of_seed_003(type_: str, provider: str, kind: str, seed_003: str) -> None:
    wanted = dialect.of_seed_004(type_, provider, {"baseUrl": "https://api.example", "token": "${env:T}"})

    assert (wanted.kind, wanted.type) == (kind, seed_003)
    if kind == "http_api":
        options = dialect.configured(BUILTIN[kind], provider, wanted.configuration)
        assert (options["api_base_url"], options["authentication_type"]) == ("https://api.example", "bearer")


@pytest.mark.parametrize(("type_", "kind"), dialect.KINDS.items())
def test_types_of_seed_003_are_kinds(type_: str, kind: str) -> None:
    assert dialect.of_seed_003(type_, "ACME", {}, plan=Plan()).kind == kind


def test_types_that_no_seed_has_are_refused_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="connector_type: must be one of BANK_SFTP"):
        dialect.of_seed_003("FTP", "ACME", {}, plan=Plan())
    with pytest.raises(ConfigError, match="type: must be one of SFTP, API"):
        dialect.of_seed_004("FTP", "ACME", {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": "localhost"}, True),
        ({"host": "127.0.0.9"}, True),
        ({"host": "::1"}, True),
        ({"api_base_url": "http://127.0.0.1:1/v1"}, True),
        ({"host": "localhost.evil.example"}, False),
        ({"host": "10.0.0.1"}, False),
        ({"api_base_url": "http://127.0.0.1.evil.example"}, False),
        ({"api_base_url": "http://[::1"}, False),
        ({"directory": "/in"}, False),
        ({}, False),
    ],
)
def test_only_this_machine_is_this_machine(options: dict[str, Any], *, expected: bool) -> None:
    assert dialect.is_local(options) is expected
    reached = dialect.reaching(BUILTIN["sftp"], options)
    assert ("allow_networks" in reached) is expected


def test_networks_that_are_named_are_left_as_they_are() -> None:
    options = {"host": "localhost", "allow_networks": ["127.0.0.1/32"]}

    assert dialect.reaching(BUILTIN["sftp"], options) == options


@pytest.mark.parametrize(
    ("plan", "before", "after"),
    [
        (Plan(), None, Schedule()),
        (Plan("0 1 * * *"), None, Schedule("0 1 * * *", enabled=True)),
        (Plan("0 1 * * *", enabled=False), None, Schedule("0 1 * * *", enabled=False)),
        (Plan(), Schedule("0 1 * * *", "UTC", enabled=True), Schedule("0 1 * * *", "UTC", enabled=True)),
        (Plan(""), Schedule("0 1 * * *", "UTC", enabled=True), Schedule(None, "UTC", enabled=True)),
        (Plan("0 2 * * *", "UTC"), Schedule(), Schedule("0 2 * * *", "UTC", enabled=True)),
    ],
)
def test_a_plan_changes_what_it_says_of_a_schedule(plan: Plan, before: Schedule | None, after: Schedule) -> None:
    assert plan.over(before) == after


def test_options_come_back_as_seed_004_spells_them() -> None:
    options = dialect.configured(BUILTIN["sftp"], "AXIS", dialect.of_config_004(SEED_004)[0])

    camel = dialect.camel(options)

    assert {key for key, value in SEED_004.items() if camel.get(key) != value} == {"schedule"}
    assert dialect.configured(BUILTIN["sftp"], "AXIS", camel) == options
