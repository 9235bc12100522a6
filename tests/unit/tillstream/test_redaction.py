from __future__ import annotations

import base64
import html
import json
import re
from urllib.parse import quote, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tillstream.escape import escaped
from tillstream.redaction import Redactor, process_redactor

CANARY = 'k4n&r1/"v0gel"+ü\\'
BODY = "b3BlbnNzaC1rZXktdjEAAAAABG5vbmU\nAAAAEbm9uZQAAAAAAAAAB"
KEY = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{BODY}\n-----END OPENSSH PRIVATE KEY-----\n"


def basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "said",
    [
        f"401 for {CANARY}",
        f"GET /v1?{urlencode({'key': CANARY})} refused",
        f"GET /v1?key={quote(CANARY, safe='')} refused",
        f"GET /v1?key={re.sub('%..', lambda found: found[0].lower(), quote(CANARY, safe=''))}",
        f"GET /v1?key={quote_plus(CANARY)}",
        f"<b>bad key {html.escape(CANARY)}</b>",
        json.dumps({"error": f"bad key {CANARY}"}),
        json.dumps({"error": json.dumps({"key": CANARY})}),
        json.dumps({"error": CANARY}, ensure_ascii=False),
        repr({"key": CANARY}),
        repr(CANARY.encode()),
        repr(ValueError(CANARY)),
        f"Authorization: Basic {basic('rzp_live', CANARY)}",
        f"Authorization: Basic {basic('a', CANARY)}",
        f"Authorization: Basic {basic('ab', CANARY)}",
        f"Authorization: Basic {basic('abc', CANARY)} and more",
        f"Basic {base64.urlsafe_b64encode(f'{CANARY}:x'.encode()).decode()}",
        f"header {quote(basic('u', CANARY), safe='')}",
        escaped(f'said "{CANARY}"'),
    ],
)
def test_a_secret_that_comes_back_in_another_spelling_is_removed(said: str) -> None:
    shown = Redactor([CANARY]).redact(said)

    assert "***" in shown
    for part in (CANARY, "v0gel", quote(CANARY, safe=""), base64.b64encode(CANARY.encode()).decode()[2:-6]):
        assert part not in shown


@pytest.mark.parametrize("length", range(4, 40))
@pytest.mark.parametrize("before", ["", "u", "us", "use"])
@pytest.mark.parametrize("after", ["", "x", "xy"])
def test_no_more_than_the_ends_of_a_secret_show_in_anybodys_base64(length: int, before: str, after: str) -> None:
    secret = "".join(chr(33 + (7 * index + 5) % 90) for index in range(length))
    encoded = base64.b64encode(f"{before}{secret}{after}".encode()).decode()

    shown = Redactor([secret]).redact(encoded)

    assert shown == encoded if length == 4 and "***" not in shown else "***" in shown
    assert len(shown.replace("***", "").rstrip("=")) <= len(before + after) * 4 / 3 + 8


def test_every_line_of_a_key_is_a_secret_and_its_frame_is_not() -> None:
    redactor = Redactor([KEY])

    assert redactor.redact("cannot parse b3BlbnNzaC1rZXktdjEAAAAABG5vbmU here") == "cannot parse *** here"
    assert redactor.redact(f"the file holds {KEY!r}") == "the file holds '***'"
    assert "BEGIN" in redactor.redact("no -----BEGIN OPENSSH PRIVATE KEY----- in it")


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert Redactor(["hunter22", "hunter22-and-more"]).redact("hunter22-and-more hunter22") == "*** ***"


def test_what_was_learned_is_removed_until_much_else_was_learned() -> None:
    redactor = Redactor(["lasting-secret"])
    redactor.learn("first-token")
    assert redactor.redact("first-token lasting-secret") == "*** ***"

    for number in range(300):
        redactor.learn(f"token-number-{number:04}")

    assert redactor.redact("token-number-0299 lasting-secret") == "*** ***"
    assert redactor.redact("first-token") == "first-token"


@pytest.mark.parametrize("short", ["", "a", "abc", "   ", "\n\n\n\n"])
def test_what_is_too_short_to_hide_anything_mangles_nothing(short: str) -> None:
    redactor = Redactor([short])
    redactor.learn(short)

    assert redactor.redact("a bank   abc\n\n\n\n") == "a bank   abc\n\n\n\n"


@given(
    st.text(min_size=4, max_size=30).filter(lambda text: text.strip() == text),
    st.text(max_size=20),
    st.text(max_size=20),
)
def test_no_secret_survives_whatever_is_around_it(secret: str, before: str, after: str) -> None:
    shown = Redactor([secret]).redact(f"{before}{secret}{after}")

    assert secret not in shown.replace("***", "\0") or "*" in secret


def test_there_is_one_register_a_process() -> None:
    assert process_redactor() is process_redactor()
