"""What can be known of the compose files without a Docker engine: their structure, and that they fit the code."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator

from tillstream.config import Role, all_settings, load
from tillstream.docs import ROOT

_TEXT = {"type": "string", "minLength": 1}
_WORDS = {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}
_PLAIN = {"type": ["string", "number", "boolean", "null"]}
_DURATION = {"type": "string", "pattern": r"^(\d+h)?(\d+m)?(\d+s)?(\d+ms)?$", "minLength": 2}
_PORT = {"type": "string", "pattern": r"^(127\.0\.0\.1:)?(\d+|\$\{\w+:-\d+\}):\d+(/(tcp|udp))?$"}
_VOLUME = {"type": "string", "pattern": r"^[\w./-]+:/[^:]+(:ro)?$|^[\w./-]+:/\S*\$\{\w+:-\w+\}\S*(:ro)?$"}


def _only(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


# The part of the Compose Specification that is in use, at every depth: a misspelt key is one that Compose refuses, or
# worse, does not heed. Source: https://github.com/compose-spec/compose-spec/blob/main/spec.md
SERVICE = _only(
    ("image", "restart"),
    image={"type": "string", "pattern": r"^[\w./-]+:[\w.-]+$"},
    build=_only(("context",), context=_TEXT),
    command=_WORDS,
    environment={"type": "object", "additionalProperties": _PLAIN},
    depends_on={
        "type": "object",
        "additionalProperties": _only(
            ("condition",),
            condition={"enum": ["service_started", "service_healthy", "service_completed_successfully"]},
        ),
    },
    healthcheck=_only(
        ("test",),
        test={"type": "array", "items": _TEXT, "prefixItems": [{"enum": ["CMD", "CMD-SHELL"]}], "minItems": 2},
        interval=_DURATION,
        timeout=_DURATION,
        start_period=_DURATION,
        retries={"type": "integer", "minimum": 1},
    ),
    network_mode={"type": "string", "pattern": r"^(host|none|bridge|service:\w+)$"},
    ports={"type": "array", "items": _PORT},
    restart={"enum": ["unless-stopped", "on-failure", "always", "no"]},
    stop_grace_period=_DURATION,
    volumes={"type": "array", "items": _VOLUME},
)
FILE = {
    **_only(
        ("services",),
        name=_TEXT,
        services={"type": "object", "patternProperties": {"^[a-z0-9_-]+$": SERVICE}, "additionalProperties": False},
        volumes={"type": "object", "additionalProperties": {"type": "null"}},
    ),
    "patternProperties": {"^x-": {}},
}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "compose" / "compose.yaml").read_text(encoding="utf-8")))


def _text(value: object) -> str:
    """A value of an environment, with `${NAME:-default}` taken as its default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


@pytest.mark.parametrize("name", ["compose.yaml", "sftp.yaml"])
def test_every_key_at_every_depth_is_one_of_the_compose_specification(name: str) -> None:
    told = yaml.safe_load((ROOT / "compose" / name).read_text(encoding="utf-8"))

    assert [
        f"{list(each.instance_path)}: {each.message}" for each in Draft202012Validator(FILE).iter_errors(told)
    ] == []


@pytest.mark.parametrize(
    ("service", "change"),
    [
        ("kafka", {"healthcheck": {"test": ["CMD", "true"], "intervall": "5s"}}),
        ("kafka", {"healthcheck": {"test": ["CMD", "true"], "interval": 5}}),
        ("kafka", {"healthcheck": {"test": ["true"]}}),
        ("sink", {"depends_on": {"kafka": {"condition": "service_ready"}}}),
        ("sink", {"depends_on": {"kafka": {"condition": "service_healthy", "restarted": True}}}),
        ("sink", {"build": {"contxt": ".."}}),
        ("sink", {"environment": {"TILL_HOME": ["a"]}}),
        ("prometheus", {"ports": ["9090"]}),
        ("prometheus", {"volumes": ["prometheus.yml"]}),
    ],
)
def test_a_misspelt_key_would_be_noticed(compose: dict[str, Any], service: str, change: dict[str, Any]) -> None:
    spoilt = {**compose, "services": {**compose["services"], service: {**compose["services"][service], **change}}}

    assert not Draft202012Validator(FILE).is_valid(spoilt)


def test_services_refer_to_what_is_there(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for other, wanted in service.get("depends_on", {}).items():
            assert other in compose["services"]
            if wanted["condition"] == "service_healthy":
                assert "healthcheck" in compose["services"][other]
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source.startswith(".") or source in compose["volumes"], volume
            assert not source.startswith(".") or source == "./in" or (ROOT / "compose" / source).exists()


def test_there_is_one_service_for_each_role_and_they_run_what_till_knows(compose: dict[str, Any]) -> None:
    services = compose["services"]

    assert {role.value for role in Role} | {"kafka", "postgres", "prometheus", "grafana", "migrate"} == set(services)
    for role in Role:
        assert services[role.value]["command"] == ["worker", role.value]
    assert services["migrate"]["command"] == ["migrate"]


def test_the_api_keeps_secrets_where_the_connector_reads_them(compose: dict[str, Any]) -> None:
    folders = {
        volume.split(":")[1]: volume.split(":")[0]
        for volume in compose["services"]["api"]["volumes"]
        if not volume.endswith(":ro")
    }

    assert folders == {"/var/lib/tillstream/secrets": "secrets"}
    assert compose["services"]["connector"]["volumes"] == compose["services"]["api"]["volumes"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "TILL_HOME=/var/lib/tillstream" in dockerfile
    assert "install -d -o till -m 700 /var/lib/tillstream/secrets" in dockerfile  # or the volume would be root's


def test_what_the_workers_are_told_are_settings_that_hold(compose: dict[str, Any]) -> None:
    known = {setting.variable for setting in all_settings()}

    for name in (*Role, "migrate"):
        environment = {key: _text(value) for key, value in compose["services"][name]["environment"].items()}
        assert set(environment) <= known
        settings = load(environ=environment).settings
        assert settings.kafka.bootstrap == "kafka:9092"
    addresses = dict(settings_of(compose, Role.MONITOR).monitor.addresses)
    for role in (Role.SINK, Role.CONNECTOR, Role.LETTERS):
        port = settings_of(compose, role).http.port(role)
        assert addresses[role.value] == f"http://{role.value}:{port}"


def settings_of(compose: dict[str, Any], role: Role) -> Any:
    environment = compose["services"][role.value]["environment"]
    return load(environ={key: _text(value) for key, value in environment.items()}).settings


def test_prometheus_scrapes_every_role_where_it_listens(compose: dict[str, Any]) -> None:
    config = yaml.safe_load((ROOT / "compose" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]

    targets = {each["labels"]["role"]: each["targets"] for each in job["static_configs"]}

    hosts = {role: "127.0.0.1" if role is Role.API else role.value for role in Role}
    expected = {role.value: [f"{hosts[role]}:{settings_of(compose, role).http.port(role)}"] for role in Role}
    assert targets == expected
    assert compose["services"]["api"]["network_mode"] == "service:prometheus", "it is there that 127.0.0.1 is the API"
    assert config["rule_files"] == ["rules.yml"]


def test_only_prometheus_and_grafana_are_published_and_only_on_loopback(compose: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}

    assert published == {"prometheus": ["127.0.0.1:9090:9090"], "grafana": ["127.0.0.1:3000:3000"]}


def test_the_brokers_settings_keep_what_replay_needs(compose: dict[str, Any]) -> None:
    kafka = compose["services"]["kafka"]["environment"]

    assert kafka["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    assert int(kafka["KAFKA_OFFSETS_RETENTION_MINUTES"]) >= 5 * 365 * 24 * 60


def test_the_image_copies_every_package_and_what_its_build_reads() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")

    for package in ("schemas", "connectors", "streams", "sinks", "tillstream"):
        assert f"COPY {package} {package}" in text
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name
    assert "--require-hashes" in text
    assert re.search(r"^USER till$", text, re.MULTILINE)
