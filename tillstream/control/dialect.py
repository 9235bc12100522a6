"""
How the seeds describe connectors, in our own words: kind, configuration, provider, schedule.

Seed 003 has types, an entity and a flat configuration; seed 004 camel case and a schedule inside; seed 000 a name and
Go's indifference to case. Nothing is judged here: what a source's own model does not know, it refuses by name.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from connectors.http import template
from connectors.spec import SourceSpec
from schemas.errors import ConfigError
from tillstream.control.schedule import Schedule

# seed 003's types, and the kinds of source that they are
KINDS: Mapping[str, str] = {
    "BANK_SFTP": "sftp",
    "BANK_API": "http_api",
    "PG_API": "http_api",
    "PG_DATABASE": "postgres_changes",
}
TYPES_004 = ("SFTP", "API")
TUTORIAL = "directory"  # what seed 000's tutorial installs, whatever its loader is called

# Providers whose API is a payment gateway's; every other one's is a bank's (payments.md, c3).
_GATEWAYS = frozenset({"SABPAISA", "RAZORPAY", "CASHFREE", "PAYU", "PAYTM", "STRIPE"})

# What banks call their files. Source: seed 004's provider-specific defaults.
PATTERNS: Mapping[str, str] = {
    "AXIS": "AXIS_RECON_YYYYMMDD*.csv",
    "BOB": "BOB_RECON_YYYYMMDD*.csv",
    "HDFC": "HDFC_TXN_YYYYMMDD*.csv",
    "ICICI": "ICICI_SETTLEMENT_YYYYMMDD*.csv",
}
# What is in them, as far as a sample is known: samples/sftp/axis, which a test keeps equal.
_RECORDS: Mapping[str, Mapping[str, Any]] = {
    "AXIS": {
        "columns": {"reference": "TXNID", "amount": "CREDIT_AMT", "effective_at": "VALUE_DATE", "status": "STATUS"},
        "type": "payin",
        "asset": "INR/2",
        "amount_unit": "major",
        "date_format": "%Y-%m-%d",
        "timezone": "Asia/Kolkata",
        "headers": {"utr": "UTR", "rrn": "RRN", "net": "NET_CR_AMT", "remarks": "REMARKS"},
    },
}

# The seeds' words that are not ours in another spelling.
_WORDS = {
    "filepattern": "pattern",
    "baseurl": "api_base_url",
    "apiurl": "api_base_url",
    "url": "api_base_url",
    "authtype": "authentication_type",
    "path": "directory",
}
_CAMEL = {"pattern": "filePattern"}
_PLANNED = {"schedule": str, "timezone": str, "scheduleEnabled": bool, "checksumRequired": bool}
_LOCAL = ("127.0.0.0/8", "::1/128")

# a connector's own options: any JSON object
Options = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """When a connector runs by itself, as far as it is said. None: as it is, or as seed 003's table has it."""

    cron: str | None = None
    timezone: str | None = None
    enabled: bool | None = None

    def over(self, before: Schedule | None) -> Schedule:
        """The schedule that this makes of the one before; a `cron` where there was none is enabled."""
        known = before or Schedule()
        if known.cron is None and self.cron:
            known = dataclasses.replace(known, enabled=True)
        return Schedule(
            cron=known.cron if self.cron is None else self.cron or None,
            timezone=known.timezone if self.timezone is None else self.timezone,
            enabled=known.enabled if self.enabled is None else self.enabled,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """A connector in our own words. `type` is seed 003's."""

    kind: str
    provider: str
    configuration: dict[str, Any]
    type: str | None = None
    plan: Plan = Plan()


def of_install(name: str, given: Options, kinds: Iterable[str]) -> Wanted:
    """
    What seed 000's `POST /connectors/{name}` means: a name that is a kind, or a provider with a template, is one of
    that; `kind` says it otherwise. Any other name is a folder's, as the tutorial's loader is.
    """
    options = dict(given)
    known = sorted(kinds)
    kind = options.pop("kind", None)
    if kind is None and name in known:
        kind = name
    elif kind is None and name.lower() in template.names():
        kind = "http_api"
    return Wanted(str(kind or TUTORIAL), name, options)


def of_seed_003(type_: str, source_entity: str, given: Options, *, plan: Plan, kind: str | None = None) -> Wanted:
    """
    What seed 003's body means.

    Raises:
        ConfigError: the type is none of seed 003's.
    """
    if kind is None and type_ not in KINDS:
        raise ConfigError(
            f"the connector cannot be as it is described:\n  connector_type: must be one of {', '.join(KINDS)}"
        )
    chosen = kind or KINDS[type_]
    return Wanted(chosen, source_entity, dict(given), type_ if type_ in KINDS else None, plan)


def of_seed_004(type_: str, provider: str, given: Options) -> Wanted:
    """
    What seed 004's body means.

    Raises:
        ConfigError: the type is none of seed 004's.
    """
    if type_ not in TYPES_004:
        raise ConfigError(f"the connector cannot be as it is described:\n  type: must be one of {', '.join(TYPES_004)}")
    seed_003 = "BANK_SFTP" if type_ == "SFTP" else "PG_API" if provider.upper() in _GATEWAYS else "BANK_API"
    configuration, plan = of_config_004(given)
    return Wanted(KINDS[seed_003], provider, configuration, seed_003, plan)


def of_config_004(given: Options) -> tuple[dict[str, Any], Plan]:
    """
    What seed 004's `config` means: it holds the schedule, too. None there, none at all.

    Raises:
        ConfigError: what a schedule is made of is no text, or no truth value.
    """
    options = dict(given)
    problems = [
        f"{key}: must be {'text' if kind is str else 'true or false'}; got {type(options[key]).__name__}"
        for key, kind in _PLANNED.items()
        if options.get(key) is not None and not isinstance(options[key], kind)
    ]
    if problems:
        raise ConfigError("\n  ".join(["the connector cannot be as it is described:", *problems]))
    cron, enabled, zone = options.pop("schedule", None), options.pop("scheduleEnabled", None), options.get("timezone")
    if options.pop("checksumRequired", True) is False:
        options["checksum"] = "off"
    return options, Plan(cron or "", zone, enabled)


def configured(spec: SourceSpec, provider: str, given: Options) -> dict[str, Any]:
    """
    The options as the source knows them, with what is known of the provider in place of those that are not given.

    Raises:
        ConfigError: an option is there twice, in two spellings.
    """
    options = spelled(spec, given)
    if spec.kind == "sftp":
        return _of_bank(provider.upper(), options)
    if spec.kind == "http_api":
        return _of_api(provider.lower(), options)
    return options


def _of_bank(provider: str, options: dict[str, Any]) -> dict[str, Any]:
    usual = PATTERNS.get(provider)
    if usual is not None and options.setdefault("pattern", usual) == usual:
        options = {**_RECORDS.get(provider, {}), **options}
    if options.get("checksum_ext"):
        options.setdefault("rest_s", 0)  # the checksum comes last, and tells that the file is whole
    return options


def _of_api(provider: str, options: dict[str, Any]) -> dict[str, Any]:
    if provider in template.names() and not _has_lists(options):
        options["template"] = provider
    for option, kind in (("token", "bearer"), ("api_key", "api_key")):
        if option in options:
            options.setdefault("authentication_type", kind)
    return options


def spelled(spec: SourceSpec, given: Options) -> dict[str, Any]:
    """
    The options under the names that the source knows: `remotePath` and `Remote_Path` are `remote_path`.

    Raises:
        ConfigError: an option is there twice, in two spellings.
    """
    names = {_bare(name): name for name in spec.config.model_fields}
    words = {bare: name for bare, name in _WORDS.items() if name in spec.config.model_fields and bare not in names}
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = key if key in spec.config.model_fields else names.get(_bare(key)) or words.get(_bare(key)) or key
        if name in found:
            raise ConfigError(f"the connector cannot be as it is described:\n  {name}: is there twice, also as {key}")
        found[name] = value
    return found


def camel(options: Options) -> dict[str, Any]:
    """The options as seed 004 spells them."""
    return {_CAMEL.get(name) or _camel(name): value for name, value in options.items()}


def reaching(spec: SourceSpec, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    The options with leave to reach this machine, where they name it: the seeds' examples read from `localhost`.

    Only for where nobody is a partner but for a demonstration: never in production.
    """
    if "allow_networks" not in spec.config.model_fields or "allow_networks" in options or not is_local(options):
        return dict(options)
    return {**options, "allow_networks": list(_LOCAL)}


def is_local(options: Options) -> bool:
    """Whether what is read is on this machine, by name or address."""
    host = options.get("host")
    if not isinstance(host, str):
        try:
            host = urlsplit(str(options.get("api_base_url", ""))).hostname or ""
        except ValueError:
            return False
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _has_lists(options: Options) -> bool:
    """Whether an API's configuration says by itself what is read; a list that is only named is the template's."""
    resources = options.get("resources")
    if "template" in options or not isinstance(resources, list):
        return "template" in options
    return any(isinstance(each, Mapping) and "path" in each for each in resources)


def _bare(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


@lru_cache(maxsize=1_024)  # a list of connectors spells the same few over and over
def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
