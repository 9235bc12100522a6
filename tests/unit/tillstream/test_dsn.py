from __future__ import annotations

import pytest

from tillstream.dsn import mask_url, secrets_of


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("postgresql://u:p@h:5/d", "postgresql://u:***@h:5/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://u:a@b@h/d", "postgresql://u:***@h/d"),
        ("postgresql:///till?host=/tmp/x&password=p", "postgresql:///till?host=/tmp/x&password=***"),
        ("postgresql://u:p/w@h/d", "***"),
        ("postgresql://[::1", "***"),
        ("no url at all", "***"),
    ],
)
def test_a_url_is_shown_without_its_password_and_a_doubtful_one_not_at_all(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_a_password_is_a_secret_as_spelled_and_as_meant() -> None:
    assert secrets_of("postgresql://u:p%40ss@h/d") == ("p%40ss", "p@ss")


def test_an_url_that_does_not_parse_is_secret_as_a_whole() -> None:
    assert secrets_of("postgresql://[::1") == ("postgresql://[::1",)
    assert "postgresql://u:p/w@h/d" in secrets_of("postgresql://u:p/w@h/d")
