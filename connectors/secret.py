"""
Secrets by reference: a configuration names where a secret is, never what it is.

    password: ${env:AXIS_PASSWORD}          a variable of the worker's environment
    private_key: ${file:axis/id_ed25519}    a file below the worker's folder of secrets

A reference is resolved when it is used, so that a secret can be changed without touching the connector.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Protocol

from pydantic import AfterValidator
from pydantic.fields import FieldInfo

from connectors.word import Called
from schemas.errors import SourceMisconfigured

REFERENCE = re.compile(
    r"\$\{(?:env:(?P<env>[A-Za-z_][A-Za-z0-9_]{0,127})|file:(?P<file>[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*))\}", re.ASCII
)


def _is_reference(value: str) -> str:
    if value and not REFERENCE.fullmatch(value):
        # the value itself may be a secret: it is not quoted
        raise ValueError("a secret is given by reference: ${env:NAME} or ${file:NAME}")
    return value


SecretReference = Annotated[
    str, AfterValidator(_is_reference), Called("a secret's name: `${env:NAME}` or `${file:NAME}`")
]
"""A configuration field that names a secret; empty: there is none."""


def names_secret(field: FieldInfo) -> bool:
    """Whether a configuration's field is a `SecretReference`."""
    return any(getattr(each, "func", None) is _is_reference for each in field.metadata)


class Secrets(Protocol):
    """Gives the secrets that this worker may use."""

    def resolve(self, reference: str) -> str:
        """
        The secret behind a `SecretReference`; the empty text for the empty reference.

        From then on every log line and error of this process has `***` in its place.

        Raises:
            SourceMisconfigured: pause; the name is not on the worker's list, or there is nothing behind it.
        """
        ...

    def learn(self, secret: str) -> None:
        """Treat as a secret what no reference named: a token that we were given, a password made of two parts."""
        ...


class GivenSecrets:
    """Secrets from a mapping of references, for tools and tests."""

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._secrets = dict(secrets or {})

    def resolve(self, reference: str) -> str:
        """What was given for it."""
        if not reference:
            return ""
        if reference not in self._secrets:
            raise SourceMisconfigured(f"{reference} is not a secret that may be used here")
        return self._secrets[reference]

    def learn(self, secret: str) -> None:
        """Tools and tests have no log to keep it out of."""
