"""
Every setting of Tillstream, in one model, read from five places.

A flag wins over a `TILL_*` variable, that over the TOML file (`till.toml`, or the one that `TILL_CONFIG` names), that
over what a running stack of this home tells of itself, that over the default. All problems are found before any I/O
beyond reading the file, and told together: place, key, the value's type, what is allowed. A secret is named, not shown.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from schemas.errors import ConfigError
from schemas.topic import DEFAULT_PREFIX
from tillstream.dsn import mask_url, secrets_of
from tillstream.embedded.home import default_home

ENVIRONMENT_PREFIX = "TILL_"
CONFIG_VARIABLE = "TILL_CONFIG"
DEFAULT_FILE = "till.toml"

REFERABLE_PREFIX = "TILL_SECRET_"  # what connectors may refer to unless the settings say otherwise
SFTP_PASSWORD = "SFTP_PASS"  # noqa: S105  and this: seed 004's name of a bank's password

# Read elsewhere, before there are settings.
OTHER_VARIABLES: dict[str, str] = {
    CONFIG_VARIABLE: "The TOML file to read instead of `till.toml` in the working directory.",
    "TILL_CACHE": "Where downloads for the embedded stack are kept; may be deleted at any time.",
    "TILL_API_URL": "The API that commands ask, unless `--api`, `--context` or `--home` names one.",
    "TILL_CONTEXT": "The context whose API commands ask, as `--context` names one; `TILL_API_URL` wins over it.",
    "TILL_CONTEXTS": "The file of contexts, which `till context` keeps, instead of the usual one.",
    "TILL_JAVA": "The Java program (17 or newer) that runs the embedded broker.",
    "TILL_MAVEN_REPOSITORY": "Where the broker's jars are fetched; their checksums decide, not the place.",
    f"{REFERABLE_PREFIX}*": "Secrets that connectors may refer to as `${env:TILL_SECRET_…}`: see `secrets.env`.",
    "TILL_POSTGRES_BIN": "The folder of a local PostgreSQL's programs, for the embedded server.",
}
_OTHER_PREFIXES = ("TILL_TEST_", REFERABLE_PREFIX)

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)", re.ASCII)
_DAY_S = 86_400.0
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[A-Za-z_][A-Za-z0-9_]{3,}\*", re.ASCII)


class Environment(StrEnum):
    """Where this process runs. `production` refuses what only tests may use."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Role(StrEnum):
    """The worker processes (one sole writer each; the API writes through services alone)."""

    SINK = "sink"
    CONNECTOR = "connector"
    LETTERS = "letters"
    MONITOR = "monitor"
    API = "api"


def parse_duration(value: object) -> object:
    """Seconds of `"250ms"`, `"30s"`, `"5m"`, `"2h"` or `"7d"`; anything else is left for the field to judge."""
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match.group(1)) * _UNITS_S[match.group(2)]
    return value


Seconds = Annotated[float, BeforeValidator(parse_duration)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class KafkaSettings(_Section):
    """How to reach the broker."""

    bootstrap: str = Field(
        default="127.0.0.1:9092", min_length=3, description="Brokers to ask first: `host:port`, several with commas."
    )
    session_timeout_s: Seconds = Field(
        default=10.0,
        ge=1,
        le=300,
        description="After this silence a worker's partitions go to another one. The broker sets a minimum.",
    )

    @field_validator("bootstrap")
    @classmethod
    def _is_hosts_and_ports(cls, value: str) -> str:
        for broker in value.split(","):
            host, _, port = broker.strip().rpartition(":")
            if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
                raise ValueError("must be host:port, or several separated by commas")
        return value


class PostgresSettings(_Section):
    """How to reach the database."""

    dsn: SecretStr = Field(
        default=SecretStr("postgresql://127.0.0.1:5432/till"),
        description="Connection string, `postgresql://user:password@host:port/database`.",
    )
    pool_size: int = Field(
        default=4,
        ge=2,
        le=64,
        description="Connections of one worker at most; a sink uses one for each busy partition.",
    )
    command_timeout_s: Seconds = Field(
        default=30.0, ge=1, le=600, description="A statement that takes longer has failed, and is tried again."
    )

    @field_validator("dsn")
    @classmethod
    def _is_postgres(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("postgresql://", "postgres://")):
            raise ValueError("must start with postgresql://")
        return value


class TopicSettings(_Section):
    """The topics of this installation."""

    prefix: str = Field(
        default=DEFAULT_PREFIX,
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="First part of every topic and consumer group; installations on one broker use different ones.",
    )
    partitions: int = Field(
        default=4, ge=1, le=1_000, description="Partitions of the events topic when it is created: the unit of scale."
    )
    state_partitions: int = Field(
        default=4, ge=1, le=1_000, description="Partitions of the connector-state topic when it is created."
    )
    replication_factor: int = Field(
        default=1, ge=1, le=10, description="Copies of each partition when a topic is created; 3 in production."
    )


class SinkSettings(_Section):
    """How the sink takes events."""

    slice_events: int = Field(default=4_000, ge=1, le=50_000, description="Events of one database transaction at most.")
    slice_bytes: int = Field(
        default=4_194_304, ge=65_536, le=268_435_456, description="Bytes of one database transaction at most."
    )
    watchdog_s: Seconds = Field(
        default=60.0,
        ge=1,
        le=3_600,
        description="A sink that makes no progress for so long, while lag exists and nothing holds it, ends itself.",
    )


class ConnectorSettings(_Section):
    """How connectors run. Each connector's own options are in its configuration."""

    refresh_s: Seconds = Field(
        default=2.0,
        gt=0,
        le=3_600,
        description="How often a worker compares the connectors it should run with those it runs.",
    )
    heartbeat_s: Seconds = Field(default=5.0, gt=0, le=600, description="How often a worker tells that its runs live.")
    adapter_modules: str = Field(
        default="",
        pattern=r"^([A-Za-z_][A-Za-z0-9_.]*(,\s*|$))*$",
        description="Python modules whose classes connectors may name as adapters, commas between; their parts too.",
    )

    @property
    def modules(self) -> list[str]:
        """The modules, one by one."""
        return [name for each in self.adapter_modules.split(",") if (name := each.strip())]


class SecretsSettings(_Section):
    """Which secrets connectors may refer to. A configuration names a secret, and never holds one."""

    env: str = Field(
        default=f"{REFERABLE_PREFIX}*,{SFTP_PASSWORD}",
        description="Variables that `${env:NAME}` may name, commas between; `*` ends the beginning of names.",
    )
    folder: Path | None = Field(
        default=None, description="Folder below which `${file:NAME}` is read. Default: `secrets` in the home."
    )

    @field_validator("env")
    @classmethod
    def _lists_names(cls, value: str) -> str:
        for name in filter(None, (each.strip() for each in value.split(","))):
            if not _VARIABLE.fullmatch(name):
                # a list that allows everything would hand over the worker's whole environment
                raise ValueError("must be names of variables, or beginnings of four characters and more with a `*`")
        return value

    @field_validator("folder", mode="before")
    @classmethod
    def _is_absolute(cls, value: object) -> object:
        return Path(value).expanduser().absolute() if isinstance(value, str) and value else value or None

    @property
    def names(self) -> list[str]:
        """The variables, and beginnings of variables."""
        return [name for each in self.env.split(",") if (name := each.strip())]


class MonitorSettings(_Section):
    """How often the monitor measures, and when it raises an alert."""

    interval_s: Seconds = Field(default=5.0, gt=0, le=600, description="Pause between two sweeps.")
    lag_alert_events: int = Field(
        default=100_000, ge=1, description="Lag of a group on a topic, in events, that raises `tillstream_lag_alert`."
    )
    lag_alert_s: Seconds = Field(
        default=20.0, gt=0, description="Age of the oldest unprocessed event that raises `tillstream_lag_alert`."
    )
    run_deadline_s: Seconds = Field(
        default=60.0, gt=0, description="A run read to its end waits so long for the sink; then it is overdue."
    )
    heartbeat_timeout_s: Seconds = Field(
        default=25.0, gt=0, description="A run whose worker was silent for so long, or lost its claim, has crashed."
    )
    keep_activity_days: int = Field(
        90, ge=1, le=3_650, description="Days for which it is kept what happened to connectors and runs, and when."
    )
    keep_repeats_days: int = Field(
        default=30,
        ge=1,
        le=36_500,
        description="Days after a run closed until the events that an earlier run had published too become a count.",
    )

    workers: str = Field(
        default="",
        description="Workers to ask how they fare, `role=http://host:port`, commas between; empty: those of this home.",
    )

    @field_validator("workers")
    @classmethod
    def _is_addresses(cls, value: str) -> str:
        for each in filter(None, value.split(",")):
            role, _, url = each.strip().partition("=")
            if not role or not url.startswith(("http://", "https://")):
                raise ValueError("must be role=http://host:port, or several separated by commas")
        return value

    @property
    def addresses(self) -> list[tuple[str, str]]:
        """The workers to ask, as (role, base address)."""
        named = (each.strip().partition("=") for each in self.workers.split(",") if each.strip())
        return [(role, url.rstrip("/")) for role, _, url in named]


class HttpSettings(_Section):
    """Where each worker serves /metrics, /livez and /readyz."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. The endpoint has no login: keep it on loopback or a private network.",
    )
    sink_port: int = Field(
        default=0,
        ge=0,
        le=65_535,
        description="Port of the sink; 0 takes a free one, which `run/sink.json` of the home tells.",
    )
    connector_port: int = Field(default=0, ge=0, le=65_535, description="Port of the connector worker; 0: a free one.")
    letters_port: int = Field(default=0, ge=0, le=65_535, description="Port of the letters worker; 0: a free one.")
    monitor_port: int = Field(default=0, ge=0, le=65_535, description="Port of the monitor; 0: a free one.")
    api_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address that the API listens on. It has no login: only a loopback address is taken.",
    )
    api_port: int = Field(
        default=8080,
        ge=0,
        le=65_535,
        description="Port of the API; 0: a free one, which `till up` takes unless a port is set.",
    )

    @field_validator("api_host")
    @classmethod
    def _is_loopback(cls, value: str) -> str:
        try:
            is_loopback = value == "localhost" or ipaddress.ip_address(value).is_loopback
        except ValueError:
            is_loopback = False
        if not is_loopback:
            raise ValueError("must be a loopback address, such as 127.0.0.1: the API has no login")
        return value

    def port(self, role: Role) -> int:
        """The port of one role; 0 asks for a free one."""
        return {
            Role.SINK: self.sink_port,
            Role.CONNECTOR: self.connector_port,
            Role.LETTERS: self.letters_port,
            Role.MONITOR: self.monitor_port,
            Role.API: self.api_port,
        }[role]


class LogSettings(_Section):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe level that is logged."
    )
    format: Literal["logfmt", "json"] = Field(
        default="logfmt", description="`logfmt`: key=value; `json`: one object a line."
    )


class Settings(_Section):
    """All settings. The docs, `till config show` and the look-up of variables are generated from these fields."""

    home: Path = Field(
        default_factory=lambda: default_home(os.environ),
        description="Everything that an embedded stack writes, and `run/<role>.json`. Default: `tillstream` "
        "in the user's data (`$XDG_DATA_HOME`, else `~/.local/share`); for root `/var/lib/tillstream`.",
    )
    environment: Environment = Field(default=Environment.DEVELOPMENT, description="`production` refuses failpoints.")
    failpoints: str = Field(
        default="",
        max_length=1_000,
        description="Faults for tests, such as `after_commit=kill@3`; refused in production.",
    )
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    postgres: PostgresSettings = Field(default_factory=PostgresSettings)
    topic: TopicSettings = Field(default_factory=TopicSettings)
    sink: SinkSettings = Field(default_factory=SinkSettings)
    connector: ConnectorSettings = Field(default_factory=ConnectorSettings)
    secrets: SecretsSettings = Field(default_factory=SecretsSettings)
    monitor: MonitorSettings = Field(default_factory=MonitorSettings)
    http: HttpSettings = Field(default_factory=HttpSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @field_validator("home")
    @classmethod
    def _is_absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @model_validator(mode="after")
    def _production_has_no_failpoints(self) -> Self:
        if self.environment is Environment.PRODUCTION and self.failpoints:
            raise ValueError("failpoints are refused while environment is production")
        return self

    def secret_texts(self) -> tuple[str, ...]:
        """Every secret text these settings hold, parts of URLs included, for the log's redaction."""
        return secrets_of(self.postgres.dsn.get_secret_value())


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting as a person finds it: `key` in the file, `variable` in the environment."""

    key: str
    variable: str
    field: FieldInfo

    @property
    def is_secret(self) -> bool:
        """Whether its value is never shown."""
        return self.field.annotation is SecretStr

    @property
    def allowed(self) -> str:
        """What the value may be, in words."""
        return allowed(self.field)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for every key the place its value came from."""

    settings: Settings
    origins: Mapping[str, str]

    def shown(self) -> Iterator[tuple[str, str, str]]:
        """(key, value, origin) of every setting, in the model's order; secrets masked."""
        for setting in all_settings():
            value: object = self.settings
            for part in setting.key.split("."):
                value = getattr(value, part)
            yield setting.key, show(value), self.origins[setting.key]


def all_settings() -> Iterator[Setting]:
    """Every setting, in the model's order."""
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            for inner, inner_field in section.model_fields.items():
                yield Setting(f"{name}.{inner}", variable_of(f"{name}.{inner}"), inner_field)
        else:
            yield Setting(name, variable_of(name), field)


def variable_of(key: str) -> str:
    """The environment variable of a key: `sink.slice_events` is `TILL_SINK_SLICE_EVENTS`."""
    return ENVIRONMENT_PREFIX + key.replace(".", "_").upper()


def load(
    flags: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    file: Path | None = None,
    stack: Mapping[str, str] | None = None,
) -> Loaded:
    """
    The settings in force. `file` is the one a flag named; else `TILL_CONFIG`'s, else `till.toml` here if there is one.

    `stack` is what the running stack of the home tells of itself (keys as in the file).

    Raises:
        ConfigError: everything that is wrong, all at once.
    """
    environ = os.environ if environ is None else environ
    problems: list[str] = []
    values: dict[str, tuple[object, str]] = {key: (value, "running stack") for key, value in (stack or {}).items()}
    values["home"] = (default_home({**environ, "TILL_HOME": ""}), "default")
    values.update(_from_file(file, environ, problems))
    values.update(_from_environment(environ, problems))
    values.update(_from_flags(flags or {}, problems))
    settings = _validated(values, problems)
    if problems or settings is None:
        count = "1 setting is" if len(problems) == 1 else f"{len(problems)} settings are"
        raise ConfigError(
            "\n  ".join([f"{count} wrong:", *problems]), hint="see docs/config.md, or `till config show --origin`"
        )
    return Loaded(settings, {setting.key: values.get(setting.key, ("", "default"))[1] for setting in all_settings()})


def _from_file(file: Path | None, environ: Mapping[str, str], problems: list[str]) -> dict[str, tuple[object, str]]:
    named = file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    path = named or Path(DEFAULT_FILE)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named is not None:
            problems.append(f"{path}: there is no such file")
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        problems.append(f"{path}: cannot be read: {exc}")
        return {}
    known = {setting.key for setting in all_settings()}
    found: dict[str, tuple[object, str]] = {}
    for key, value in _flattened(table):
        if key in known:
            found[key] = (value, str(path))
        else:
            problems.append(f"{path}: {key}: is not a setting{_did_you_mean(key, known)}")
    return found


def _flattened(table: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", item) for inner, item in value.items())
        else:
            yield name, value


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, tuple[object, str]]:
    known = {setting.variable: setting.key for setting in all_settings()}
    found: dict[str, tuple[object, str]] = {}
    for name, value in environ.items():
        if not name.startswith(ENVIRONMENT_PREFIX) or name in OTHER_VARIABLES or name.startswith(_OTHER_PREFIXES):
            continue
        if name in known and value:  # set to nothing means not set, as compose files pass it
            found[known[name]] = (value, name)
        elif name not in known:
            problems.append(f"{name}: is not a setting{_did_you_mean(name, known)}")
    return found


def _from_flags(flags: Mapping[str, str], problems: list[str]) -> dict[str, tuple[object, str]]:
    known = {setting.key: setting for setting in all_settings()}
    found: dict[str, tuple[object, str]] = {}
    for key, value in flags.items():
        if key not in known:
            problems.append(f"--set {key}: is not a setting{_did_you_mean(key, known)}")
        elif known[key].is_secret:
            problems.append(f"--set {key}: is a secret, and flags are public; use {known[key].variable} or the file")
        else:
            found[key] = (value, "--set")
    return found


def _did_you_mean(name: str, known: Mapping[str, object] | set[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _validated(values: Mapping[str, tuple[object, str]], problems: list[str]) -> Settings | None:
    tree: dict[str, Any] = {}  # what a file or a variable holds: the model judges it
    for key, (value, _) in values.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as exc:
        fields = {setting.key: setting for setting in all_settings()}
        for error in exc.errors(include_url=False):
            key = ".".join(str(part) for part in error["loc"])
            problems.append(_problem(fields.get(key), key, values, error["msg"], error["type"]))
        return None


def _problem(
    setting: Setting | None, key: str, values: Mapping[str, tuple[object, str]], message: str, kind: str
) -> str:
    reason = message.removeprefix("Value error, ")
    if setting is None:
        return reason if not key else f"{key}: {reason}"
    value, origin = values[key]
    place = origin if origin == setting.variable else f"{origin}: {key}"
    got = type(value).__name__ if setting.is_secret else f"{type(value).__name__} {str(value)[:60]!r}"
    wanted = reason if kind == "value_error" else f"must be {setting.allowed}"
    return f"{place}: {wanted}; got {got}"


def allowed(field: FieldInfo) -> str:
    """What a field takes, in words: its type, bounds and choices."""
    annotation = field.annotation
    choices = getattr(annotation, "__args__", ()) if getattr(annotation, "__origin__", None) is Literal else ()
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        choices = tuple(annotation)
    if choices:
        return "one of " + ", ".join(str(choice) for choice in choices)
    is_duration = any(isinstance(item, BeforeValidator) for item in field.metadata)
    name = "a duration such as 30s or 5m" if is_duration else _TYPE_WORDS.get(annotation, "text")
    return " ".join([name, *_bounds(field)])


_TYPE_WORDS: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    SecretStr: "text (secret)",
    Path: "a path",
}


def _bounds(field: FieldInfo) -> Iterator[str]:
    for item in field.metadata:
        match item:
            case Ge(ge=least):
                yield f"≥ {least:g}" if isinstance(least, float) else f"≥ {least}"
            case Gt(gt=least):
                yield f"> {least}"
            case Le(le=most):
                yield f"≤ {most:g}" if isinstance(most, float) else f"≤ {most}"
            case Lt(lt=most):
                yield f"< {most}"
            case MinLen(min_length=least):
                yield f"of at least {least} characters"
            case MaxLen(max_length=most):
                yield f"of at most {most} characters"
            case _:
                if pattern := getattr(item, "pattern", None):
                    yield f"matching {pattern}"


def show(value: object) -> str:
    """A value for people: secrets masked, URLs with their password masked, nothing as an empty text."""
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value())
    return "" if value is None else str(value)
