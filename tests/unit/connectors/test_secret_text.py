"""Texts with secrets in them: what is refused, and what of an old configuration is shown."""

from __future__ import annotations

from typing import Any

import pytest

from connectors.http_api import HttpApiConfig
from connectors.remote.config import SftpConfig
from connectors.secret_text import masked, problems_of
from connectors.spec import ConnectorConfig

CANARY = "canary-0123456789"


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "authorisation", "Proxy-Authorization", "X-Auth", "Cookie", "Set-Cookie", "access_token"),
        *("X-Api-Key", "apikey", "accessKeyId", "client_secret", "passwd", "PASSWORD", "passphrase", "Signature"),
        *("x-hmac", "sessionId", "credentials", "user_pwd", "jwt"),
    ],
)
def test_a_name_that_speaks_of_a_credential_stands_before_no_text(name: str) -> None:
    assert list(problems_of({name: CANARY})) == [
        f"{name} holds a secret; it is given by reference, also inside a text: Bearer ${{env:NAME}}"
    ]
    assert masked({name: CANARY}) == {name: "***"}
    assert not list(problems_of({name: "Bearer ${env:A}"}))


@pytest.mark.parametrize("name", ["x-api-version", "author", "status", "keyword", "passenger", "X-Client-Id"])
def test_other_names_stand_before_any_text(name: str) -> None:
    assert not list(problems_of({name: CANARY}))
    assert masked({name: CANARY}) == {name: CANARY}


@pytest.mark.parametrize("text", ["basic plan", "Token of thanks", "bearer", "by digest"])
def test_words_are_no_credentials(text: str) -> None:
    assert not list(problems_of({"note": text}))


@pytest.mark.parametrize("text", [f"Bearer {CANARY}", f"basic {CANARY}", f" Token  {CANARY} "])
def test_a_header_of_credentials_is_one_under_any_name(text: str) -> None:
    assert list(problems_of({"note": text}))
    assert masked({"note": text}) == {"note": "***"}


def test_what_was_masked_is_no_configuration() -> None:
    assert list(problems_of({"X-Api-Key": "***"}))


@pytest.mark.parametrize(
    ("model", "given", "shown"),
    [
        (HttpApiConfig, {"token": CANARY}, {"token": "***"}),
        (HttpApiConfig, {"token": "${env:A}"}, {"token": "${env:A}"}),
        (HttpApiConfig, {"token_url": "https://x/"}, {"token_url": "https://x/"}),
        (HttpApiConfig, {"api_key_name": "X-Api-Key"}, {"api_key_name": "X-Api-Key"}),
        (
            HttpApiConfig,
            {"request_headers": {"Authorization": f"Bearer {CANARY}", "X": "y", "Z": f"Basic {CANARY}"}},
            {"request_headers": {"Authorization": "***", "X": "y", "Z": "***"}},
        ),
        (
            HttpApiConfig,
            {"resources": ["payments", {"name": "r", "query": {"key": CANARY, "page_token": "{cursor}"}}]},
            {"resources": ["payments", {"name": "r", "query": {"key": "***", "page_token": "{cursor}"}}]},
        ),
        (
            HttpApiConfig,
            {"resources": [{"body": {"secret": [{"v": CANARY, "n": 123456, "b": True, "z": None}]}}]},
            {"resources": [{"body": {"secret": [{"v": "***", "n": "***", "b": True, "z": None}]}}]},
        ),
        (HttpApiConfig, {"headers": {"token": "token_id"}}, {"headers": {"token": "token_id"}}),
        (HttpApiConfig, {"pasword": CANARY, "no": CANARY}, {"pasword": "***", "no": CANARY}),
        (HttpApiConfig, {"api_secret": {"a": CANARY}}, {"api_secret": {"a": "***"}}),
        (SftpConfig, {"password": CANARY, "host_key": "SHA256:abc"}, {"password": "***", "host_key": "SHA256:abc"}),
        (None, {"password": CANARY, "host": "h"}, {"password": "***", "host": "h"}),
    ],
)
def test_an_old_configuration_is_shown_without_the_secrets_that_it_spells(
    model: type[ConnectorConfig] | None, given: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert masked(given, model) == shown
