"""Which API commands ask, and the file of contexts."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from schemas.errors import ConfigError, Conflict, NotFound
from tillstream.cli import address, contextfile
from tillstream.cli.context import FLAGS
from tillstream.cli.contextfile import Contexts
from tillstream.cli.problem import ApiUnavailable
from tillstream.cli.url import checked_url, is_plain

A, B = "https://a.example", "https://b.example/till"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No flag, no variable; a file with two contexts, a current; a home where an API announced itself."""
    for name in os.environ:
        if name.startswith("TILL_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILL_CONTEXTS", str(tmp_path / "contexts.toml"))
    contextfile.changed(tmp_path / "contexts.toml", lambda _: Contexts({"a": A, "b": B}, "a"))
    announce(tmp_path / "home", "http://127.0.0.1:4711")
    for name in ("api", "context", "home"):
        monkeypatch.setattr(FLAGS, name, None)
    monkeypatch.setattr(FLAGS, "settings", {})
    return monkeypatch


def announce(home: Path, url: str) -> None:
    (home / "run").mkdir(parents=True, exist_ok=True)
    (home / "run" / "api.json").write_text(json.dumps({"role": "api", "url": url}))


def meant() -> str:
    return address.finder()().url


def test_the_nearest_word_wins(world: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, empty = tmp_path / "home", tmp_path / "empty"
    assert meant() == A, "the current context"
    world.setenv("TILL_HOME", str(home))
    assert meant() == "http://127.0.0.1:4711", "a variable is nearer than a file"
    world.setenv("TILL_CONTEXT", "b")
    assert meant() == B
    world.setenv("TILL_API_URL", "https://c.example/")
    assert meant() == "https://c.example"
    world.setattr(FLAGS, "home", home)
    assert meant() == "http://127.0.0.1:4711", "a flag is nearer than a variable"
    world.setattr(FLAGS, "context", "a")
    assert meant() == A
    world.setattr(FLAGS, "context", None)
    world.setattr(FLAGS, "api", "http://localhost:1")
    assert meant() == "http://localhost:1"
    world.setattr(FLAGS, "context", "a")
    with pytest.raises(ConfigError, match="two APIs"):
        meant()
    world.setattr(FLAGS, "api", None)
    world.setattr(FLAGS, "context", "nobody")
    with pytest.raises(NotFound, match="no context 'nobody'"):
        meant()
    world.setattr(FLAGS, "context", None)
    world.setattr(FLAGS, "home", empty)
    with pytest.raises(ApiUnavailable, match="no API runs in"):
        meant()
    world.setenv("TILL_HTTP_API_PORT", "4242")
    assert meant() == "http://127.0.0.1:4242", "somebody named the port, too"


def test_without_a_word_it_is_the_homes_and_then_the_settings(world: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world.setenv("TILL_CONTEXTS", str(tmp_path / "none.toml"))
    world.setenv("XDG_DATA_HOME", str(tmp_path))
    world.setenv("TILL_CONFIG", str(tmp_path / "till.toml"))
    (tmp_path / "till.toml").write_text(f'home = "{tmp_path / "home"}"\n')
    assert meant() == "http://127.0.0.1:4711"

    (tmp_path / "till.toml").write_text(f'home = "{tmp_path / "empty"}"\n[http]\napi_host = "::1"\n')
    assert meant() == "http://[::1]:8080"


def test_an_api_that_comes_back_elsewhere_is_found_there(world: pytest.MonkeyPatch, tmp_path: Path) -> None:
    world.setattr(FLAGS, "home", tmp_path / "home")
    find = address.finder()
    assert find().url == "http://127.0.0.1:4711"

    announce(tmp_path / "home", "http://127.0.0.1:4712")
    assert find().url == "http://127.0.0.1:4712"
    (tmp_path / "home" / "run" / "api.json").write_text('{"url": "http://u:p@127.0.0.1"}')
    with pytest.raises(ApiUnavailable):
        find()


@pytest.mark.parametrize(
    "text",
    ["", "x", "ftp://a", "http://", "http://:80", "http://a:0", "http://a:99999", "http://a b", "http://a\x1b", "//a",
     "http://[::1", "http://é.example", "http://a?token=canary", "http://a#canary", "http://u:canary@a", "http://u@a",
     "https://canary@a:x", "x" * 3_000],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_no_secret_told(text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked_url(text, place="--api")

    assert str(refused.value).startswith("--api: ")
    assert "canary" not in str(refused.value) + refused.value.hint


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("https://till.example/a/api/v1/", "https://till.example/a"),
        ("http://[::1]:1", "http://[::1]:1"),
    ],
)
def test_an_address_loses_what_is_ours_to_add(text: str, url: str) -> None:
    assert checked_url(text, place="x") == url


def test_http_to_another_machine_is_told_from_what_nobody_can_read() -> None:
    plain = ["http://till.example", "http://10.0.0.1:80", "http://127.0.0.1.example"]
    hidden = ["https://till.example", "http://127.9.9.9", "http://localhost:1", "http://[::1]:8080"]

    assert [is_plain(each) for each in (*plain, *hidden)] == [True] * 3 + [False] * 4


def test_the_file_is_ones_own_and_a_link_to_it_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dots" / "contexts.toml", tmp_path / "config" / "contexts.toml"
    real.parent.mkdir()
    link.parent.mkdir()
    link.symlink_to(real)

    done = contextfile.changed(link, lambda _: Contexts({"a": A, "x.y-z_1": B}, "x.y-z_1"))

    assert contextfile.read(link) == done
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in real.parent.iterdir()] == ["contexts.toml"]


def test_a_change_that_is_refused_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "contexts.toml"
    contextfile.changed(path, lambda _: Contexts({"a": A}, "a"))
    before = path.read_bytes()

    def refuse(_: Contexts) -> Contexts:
        raise Conflict("no")

    with pytest.raises(Conflict):
        contextfile.changed(path, refuse)
    assert path.read_bytes() == before


async def test_those_who_change_it_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "contexts.toml"

    def add(number: int) -> Contexts:
        return contextfile.changed(path, lambda now: Contexts({**now.urls, f"c{number}": A}, ""))

    await asyncio.gather(*(asyncio.to_thread(add, number) for number in range(20)))

    assert set(contextfile.read(path).urls) == {f"c{number}" for number in range(20)}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("current = 'a'", "current: must be the name"),
        ("x = 1", "x: is no key"),
        ("contexts = 1", "contexts: must be tables"),
        ("[contexts.a]\nurl = 1", "contexts.a: must have one key"),
        ("[contexts.a]\nurl = 'https://u:canary@a'", "contexts.a.url: holds a user or a password"),
        ("[contexts.a]\nurl = 'https://a'\ntoken = 'canary'", "contexts.a: must have one key"),
        ("[contexts.'a b']\nurl = 'https://a'", "a name must be"),
        ("current", "cannot be read"),
    ],
)
def test_a_file_that_holds_something_else_is_told_key_by_key(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "contexts.toml"
    path.write_text(text)

    with pytest.raises(ConfigError) as refused:
        contextfile.read(path)

    assert told in str(refused.value)
    assert str(path) in str(refused.value)
    assert "canary" not in str(refused.value)
