"""Who is talked to, and how one gets in: host keys, logins, servers that keep silent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connectors.runner import State
from connectors.testing import eventually, running
from schemas.errors import TillError
from tests.integration.sftp.world import HEADER, World, drop, hang, row
from tests.sftp_server import new_key, sftp_server

# --- who may be talked to, and how one gets in (F3) ---


async def test_a_server_with_another_key_sees_no_login_and_both_fingerprints_are_told(world: World) -> None:
    pinned = new_key().get_fingerprint("sha256")
    drop(world.folder, "a.csv", HEADER + row("a"))

    state = await world.read(host_key=pinned)

    assert state is State.PAUSED
    assert world.server.logins == []
    assert pinned in world.problems
    assert world.server.host_key in world.problems
    assert world.memory.log == []


async def test_a_server_whose_key_changes_while_we_read_is_not_logged_in_to_again(world: World, tmp_path: Path) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    async with running(world.start()) as running_task:
        await world.polled()
        world.server.cut()
        assert world.server.acceptor
        port = world.server.port
        world.server.acceptor.close()
        await world.server.acceptor.wait_closed()
        async with sftp_server(world.folder, keys=[new_key()], port=port) as impostor:
            drop(world.folder, "b.csv", HEADER + row("b"))
            await eventually(running_task.done, clock=world.clock)

    assert world.runner.state is State.PAUSED
    assert impostor.logins == []
    assert world.references == ["a"]


async def test_without_a_pinned_key_nothing_is_read_and_the_check_tells_what_to_pin(world: World) -> None:
    state = await world.read(host_key="")
    steps = await world.check(host_key="")

    assert state is State.PAUSED
    assert "no host key" in world.problems
    assert [step.ok for step in steps] == [True, True, False]
    assert f"host_key: {world.server.host_key}" in steps[-1].hint
    assert world.server.logins == []


@pytest.mark.parametrize("pinned_as", ["fingerprint", "line"])
async def test_any_of_a_servers_keys_can_be_the_pinned_one(tmp_path: Path, pinned_as: str) -> None:
    """
    A bank tells the fingerprint of its RSA key, and its server shows an Ed25519 one first.
    """
    root = tmp_path / "served"
    root.mkdir()
    rsa = new_key("ssh-rsa")
    async with sftp_server(root, keys=[new_key(), rsa]) as server:
        world = World(server, tmp_path)
        drop(root, "a.csv", HEADER + row("a"))

        line = rsa.export_public_key().decode().strip()
        await world.read(host_key=line if pinned_as == "line" else rsa.get_fingerprint("sha256"))

    assert world.references == ["a"]


async def test_a_pinned_kind_of_key_that_the_server_has_not_is_a_mismatch(world: World) -> None:
    line = new_key("ssh-rsa").export_public_key().decode().strip()

    assert await world.read(host_key=line) is State.PAUSED

    assert world.server.host_key in world.problems
    assert world.server.logins == []


async def test_a_wrong_password_is_tried_once_and_pauses(world: World) -> None:
    """
    A bank locks the account of whoever tries a wrong password again and again.
    """
    world.secrets["${env:SFTP_PASS}"] = "wrong-password-7f"

    assert await world.read() is State.PAUSED

    assert world.server.logins == ["bank"]
    assert world.problems == "127.0.0.1 refuses the login of bank by password"


@pytest.mark.parametrize("format_name", ["openssh", "pkcs8-pem"])
async def test_a_private_key_lets_in_also_with_a_passphrase(world: World, format_name: str) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    key = new_key("ssh-rsa")
    world.server.client_keys = [key.convert_to_public()]
    encrypted = key.export_private_key(format_name, passphrase="the phrase", rounds=50)
    world.secrets |= {"${file:key}": encrypted.decode(), "${env:PHRASE}": "the phrase"}

    await world.read(password="", private_key="${file:key}", passphrase="${env:PHRASE}")

    assert world.references == ["a"]


@pytest.mark.parametrize(
    ("secrets", "words"),
    [
        ({"${env:PHRASE}": "another phrase"}, "cannot be decrypted"),
        ({"${env:PHRASE}": ""}, "needs a passphrase"),
        ({"${file:key}": "no key at all"}, "no OpenSSH or PEM"),
    ],
)
async def test_a_private_key_that_cannot_be_used_is_told_before_any_connection(
    world: World, secrets: dict[str, str], words: str
) -> None:
    encrypted = new_key().export_private_key("openssh", passphrase="the phrase", rounds=50).decode()
    world.secrets |= {"${file:key}": encrypted, "${env:PHRASE}": "the phrase", **secrets}

    assert await world.read(private_key="${file:key}", passphrase="${env:PHRASE}") is State.PAUSED

    assert words in world.problems
    assert world.server.connections == []


async def test_nothing_of_the_workers_user_is_used(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Neither a key nor a configuration of its home would let in, though the server would take the key.
    """
    key = new_key()
    world.server.client_keys = [key.convert_to_public()]
    home = tmp_path / "home" / ".ssh"
    home.mkdir(parents=True)
    key.write_private_key(home / "id_ed25519")
    (home / "config").write_text(f"Host *\n  IdentityFile {home}/id_ed25519\n  User bank\n")
    (home / "known_hosts").write_text("")
    monkeypatch.setenv("HOME", str(home.parent))
    world.secrets["${env:SFTP_PASS}"] = "wrong-password-7f"

    assert await world.read() is State.PAUSED

    assert "refuses the login" in world.problems


async def test_an_address_that_is_not_allowed_is_not_connected_to(world: World) -> None:
    assert await world.read(allow_networks=[]) is State.PAUSED

    assert "not a public address" in world.problems
    assert world.server.connections == []


async def test_a_server_without_sftp_is_told(tmp_path: Path) -> None:
    root = tmp_path / "served"
    root.mkdir()
    async with sftp_server(root, without_sftp=True) as server:
        world = World(server, tmp_path)

        assert await world.read() is State.PAUSED

    assert "starting SFTP" in world.problems


# --- servers that keep silent (F1) ---


@contextlib.asynccontextmanager
async def silent_server(first: bytes) -> AsyncIterator[int]:
    """Takes connections, says `first`, and nothing more."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_024):
                pass
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


@pytest.mark.parametrize("first", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"* OK IMAP4 ready\r\n"])
async def test_a_server_that_does_not_shake_hands_is_given_up_in_time(world: World, first: bytes) -> None:
    async with silent_server(first) as port:
        began = time.monotonic()

        with pytest.raises(TillError, match=r"127\.0\.0\.1"):
            await world.listed(port=port, answer_s=0.3)

        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("step", "words"),
    [("login", "logging in"), ("scandir", "listing /"), ("open", "opening"), ("fstat", "looking at"), ("read", "down")],
)
async def test_a_server_that_falls_silent_is_given_up_in_time_and_read_once_it_answers(
    world: World, step: str, words: str
) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    world.server.hooks[step] = hang

    async with running(world.start(answer_s=0.3)):
        await eventually(lambda: world.problems and "timeout in" in world.problems)
        assert words in world.problems
        assert world.runner.state is State.DEGRADED
        del world.server.hooks[step]
        await eventually(lambda: world.references == ["a"], clock=world.clock)
        await eventually(lambda: world.runner.state is State.RUNNING, clock=world.clock)


async def test_a_listing_that_takes_long_is_alive_and_one_that_hangs_is_not(world: World) -> None:
    """
    Pages tell the runner that we wait; that we wait for something, our own deadlines tell.
    """
    drop(world.folder, "a.csv", HEADER + row("a"))

    async def slow(*_: object) -> None:
        await asyncio.sleep(0.2)

    world.server.hooks["read"] = slow
    source = world.source(deadline_s=0.2)

    began = time.monotonic()
    gaps = []
    async for _ in source.tasks({}):
        gaps.append(time.monotonic() - began)
        began = time.monotonic()

    assert len(gaps) > 3
    await source.close()
