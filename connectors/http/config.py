"""The options of the HTTP source: an API, how it is convinced, what is read of it, and how much that may take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import time
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from yarl import URL

from connectors.http import address, template
from connectors.http.auth import AuthKind, ClientPlace, KeyPlace
from connectors.http.request import places_of
from connectors.http.resource import Resource
from connectors.mapping import RecordConfig
from connectors.network import NetworkConfig
from connectors.secret import SecretReference
from connectors.secret_text import MayHoldSecrets, problems_of
from connectors.spec import ConnectorConfig

_CREDENTIALS = {
    AuthKind.BASIC: ("username", "password"),
    AuthKind.BEARER: ("token",),
    AuthKind.API_KEY: ("api_key", "api_key_name", "api_key_place"),
    AuthKind.OAUTH2: ("token_url", "client_id", "client_secret", "client_place", "oauth_scope"),
}
_HEADER = r"^[A-Za-z0-9-]{1,100}$"


def _is_address(value: str) -> str:
    if value:
        if "${" in value:
            raise ValueError("there is no secret in an address, which shows in logs")
        if wrong := list(problems_of(address.parse(value).query)):
            raise ValueError("; ".join(wrong))
    return value


# JSON Schema, whose parts are any JSON
def _as_given(schema: dict[str, Any]) -> None:
    """What a template fills in need not be given, and its resources may be named."""
    schema["required"] = []
    schema["anyOf"] = [{"required": ["api_base_url"]}, {"required": ["template"]}]
    resources = schema["properties"]["resources"]
    named = {"type": "object", "required": ["name"], "description": "One of the template's, and what is different."}
    resources["items"] = {"anyOf": [resources["items"], {"type": "string"}, named]}


Address = Annotated[str, AfterValidator(_is_address)]
"""A configuration field: an address on the web; empty: none."""

Lowered = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class HttpApiConfig(RecordConfig, NetworkConfig):
    """An API over HTTP."""

    model_config = ConfigDict(json_schema_extra=_as_given)

    poll_s: float = Field(60.0, gt=0, le=86_400, description="Seconds between two polls.")
    template: str = Field("", description="A provider that is known: what is not said here is filled in.")
    api_base_url: Address = Field(description="What the paths of the resources stand below.")
    proxy_base_url: Address = Field("", description="The same by way of a proxy of ours, which the provider knows.")
    api_mode: Literal["direct", "proxy"] = Field("direct", description="Which of the two is asked.")
    api_mode_variable: str = Field(
        "", pattern=r"^([A-Z0-9_]{1,64}_API_MODE)?$", description="Variable of the worker that says it instead."
    )
    resources: tuple[Resource, ...] = Field(min_length=1, description="The lists that are read.")
    merchant_codes: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        (), description="What {merchant_code} stands for: such a resource is read once for each."
    )

    authentication_type: Annotated[AuthKind, Lowered] = Field(
        AuthKind.NONE, description="How the API is convinced; `ip_whitelist`: it knows our address."
    )
    username: SecretReference = Field("", description="User of `basic`.")
    password: SecretReference = Field("", description="Password of `basic`.")
    token: SecretReference = Field("", description="Token of `bearer`.")
    api_key: SecretReference = Field("", description="Key of `api_key`.")
    api_key_name: str = Field("X-Api-Key", pattern=_HEADER, description="Header or parameter that holds the key.")
    api_key_place: KeyPlace = Field(KeyPlace.HEADER, description="Which of the two.")
    token_url: Address = Field("", description="Where `oauth2` has its tokens from.")
    client_id: SecretReference = Field("", description="Client of `oauth2`.")
    client_secret: SecretReference = Field("", description="Its secret.")
    client_place: ClientPlace = Field(ClientPlace.HEADER, description="Where it shows them to the token endpoint.")
    oauth_scope: str = Field("", max_length=1_000, description="Scope that a token is asked for.")
    request_headers: Annotated[dict[Annotated[str, Field(pattern=_HEADER)], str], MayHoldSecrets()] = Field(
        default_factory=dict,
        description="Headers of each request; secrets in them by reference, alone or as in `Bearer ${env:NAME}`.",
    )

    sync_days_back: int = Field(1, ge=1, le=31, description="Days that are read, for resources that go by the day.")
    daily_at: time = Field(time(2), description="When a day that is over may be asked for, by the connector's clock.")
    catch_up_days: int = Field(31, ge=1, le=366, description="Days that are made up for after the worker was away.")

    requests_per_s: float | None = Field(None, ge=0.1, le=1_000, description="Requests in a second at most.")
    request_s: float = Field(45.0, gt=0, le=3_600, description="Seconds that one request may take in all.")
    retry_after_max_s: float = Field(300.0, ge=0, le=86_400, description="Longest pause that the API may ask for.")
    run_s: float = Field(
        300.0, gt=0, le=86_400, description="Seconds of reading after which a run ends, and the next begins."
    )
    max_response_mib: int = Field(32, ge=1, le=512, description="Largest answer, also once it is inflated.")
    max_records: int = Field(100_000, ge=1, le=1_000_000, description="Records of one answer at most.")
    max_pages: int = Field(10_000, ge=1, le=1_000_000, description="Pages of one window at most.")

    tls_authorities: SecretReference = Field(
        "", description="PEM of the authorities to trust, instead of the system's."
    )
    tls_certificate: SecretReference = Field("", description="PEM of the certificate that we show.")
    tls_key: SecretReference = Field("", description="PEM of its key.")
    verify_tls: bool = Field(True, description="Whether the server must prove who it is; never off in production.")

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:  # Any: not validated yet
        if not isinstance(given, Mapping):
            return given
        options = template.filled(given)
        if "merchant_codes" not in given and not _names_merchant(options.get("resources")):
            options.pop("merchant_codes", None)  # a template's, for lists that are not asked for
        return _with_retries(options)

    @field_validator("request_headers")
    @classmethod
    def _are_headers(cls, value: dict[str, str]) -> dict[str, str]:
        if not all(text.isprintable() for text in value.values()):
            raise ValueError("a header is one line of printable characters")
        if wrong := list(problems_of(value)):
            raise ValueError("; ".join(wrong))
        return value

    @field_validator("resources")
    @classmethod
    def _differ(cls, value: tuple[Resource, ...]) -> tuple[Resource, ...]:
        if len({resource.name for resource in value}) < len(value):
            raise ValueError("two resources have one name, and it is part of every event's id")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> HttpApiConfig:
        needed = {
            AuthKind.BASIC: ("username",),
            AuthKind.BEARER: ("token",),
            AuthKind.API_KEY: ("api_key",),
            AuthKind.OAUTH2: ("token_url", "client_id", "client_secret"),
        }.get(self.authentication_type, ())
        self._check_credentials()
        if absent := [name for name in needed if not getattr(self, name)]:
            raise ValueError(f"authentication_type {self.authentication_type} needs {', '.join(absent)}")
        if self.api_mode == "proxy" and not self.proxy_base_url:
            raise ValueError("api_mode proxy needs proxy_base_url")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together")
        if self.requests_per_s and self.parallel / self.requests_per_s > self.deadline_s / 2:
            raise ValueError("requests_per_s is so low that parallel tasks would be silent for longer than deadline_s")
        if any(URL(each).query for each in (self.api_base_url, self.proxy_base_url)):
            raise ValueError("an address to ask below has no parameters; give them in a resource's query")
        if self.request_s >= self.deadline_s:
            raise ValueError("request_s must be less than deadline_s: a slow answer is not a silent source")
        for resource in self.resources:
            if resource.names_merchant and not self.merchant_codes:
                raise ValueError(f"resource {resource.name} names {{merchant_code}}; give merchant_codes")
            self.mapping_of(resource)
        if self.merchant_codes and not any(resource.names_merchant for resource in self.resources):
            raise ValueError("merchant_codes mean nothing: no resource names {merchant_code}")
        return self

    def _check_credentials(self) -> None:
        """What is given for another way of convincing the API would never be shown to it."""
        kind = self.authentication_type
        for needed, names in _CREDENTIALS.items():
            for name in names:
                if needed is not kind and getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of authentication_type {needed}; it is {kind} here")
        own = "authorization" if kind in (AuthKind.BASIC, AuthKind.BEARER, AuthKind.OAUTH2) else ""
        if kind is AuthKind.API_KEY and self.api_key_place is KeyPlace.HEADER:
            own = self.api_key_name.lower()
        if doubled := [name for name in self.request_headers if name.lower() == own]:
            raise ValueError(
                f"request_headers: {doubled[0]} is set by authentication_type {kind}; leave one of them out"
            )

    def mapping_of(self, resource: Resource) -> RecordConfig:
        """
        How the records of a resource are understood: the connector's options with the resource's own over them.

        Raises:
            ValueError: they do not fit together.
        """
        if common := sorted(ConnectorConfig.model_fields.keys() & resource.mapping.keys()):
            raise ValueError(
                f"mapping of {resource.name}: {', '.join(common)} is an option of the connector: move it there"
            )
        own = {name: getattr(self, name) for name in RecordConfig.model_fields}
        try:
            return RecordConfig.model_validate({**own, **resource.mapping})
        except ValidationError as exc:
            told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in exc.errors())
            raise ValueError(f"mapping of {resource.name}: {told}") from None

    @property
    def zone(self) -> ZoneInfo:
        """Where its days begin."""
        return ZoneInfo(self.timezone or "UTC")


# options as they stand in a configuration, before they are validated
def _with_retries(options: dict[str, Any]) -> dict[str, Any]:
    """Seed 003's names for the retries of every connector."""
    auto, count = options.pop("auto_retry", True), options.pop("retry_count", None)
    auto = auto.lower() if isinstance(auto, str) else auto
    if auto not in ("true", "false") and not isinstance(auto, bool):
        raise ValueError("auto_retry is true or false")
    wanted = 0 if auto in (False, "false") else count
    if wanted is not None and options.setdefault("max_retries", wanted) != wanted:
        raise ValueError("max_retries says another number than auto_retry and retry_count; leave those out")
    return options


def _names_merchant(resources: Any) -> bool:
    items = resources if isinstance(resources, list | tuple) else ()
    parts = [[each.get(part) for part in ("path", "query", "body")] for each in items if isinstance(each, Mapping)]
    return "merchant_code" in places_of(parts)
