from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors import network
from connectors.network import Address, Guard, NetworkConfig
from schemas.errors import SourceMisconfigured, SourceUnavailable

NOT_PUBLIC = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "fc00::1", "fd00:ec2::254", "fec0::1"],
    "link-local": ["169.254.0.1", "fe80::1"],
    "a cloud's metadata": ["169.254.169.254", "168.63.129.16", "100.100.100.200", "192.0.0.192"],
    "a carrier's": ["100.64.0.1", "100.127.255.255"],
    "for documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "for protocols": ["192.0.0.8", "192.88.99.1", "198.18.0.1", "2001::1", "2001:10::1", "100::1", "5f00::1"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "reserved": ["240.0.0.1", "255.255.255.255", "4000::1"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:0"],
    "compatible": ["::127.0.0.1", "::10.0.0.1"],
    "translated": ["::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::8.8.8.8"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::"],
}
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


def answers(monkeypatch: pytest.MonkeyPatch, *found: str) -> list[tuple[str, int]]:
    """Let the name server say this; what it was asked."""
    asked: list[tuple[str, int]] = []

    def resolved(host: str, port: int) -> list[Address]:
        asked.append((host, port))
        return [ip_address(each) for each in found]

    monkeypatch.setattr(network, "resolved", resolved)
    return asked


@pytest.mark.parametrize("address", [each for group in NOT_PUBLIC.values() for each in group])
async def test_a_name_that_leads_to_what_is_not_public_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    answers(monkeypatch, address)

    with pytest.raises(SourceMisconfigured, match="which is not a public address") as caught:
        await Guard().resolve("api.example.com", 443)

    assert "allow_networks" in caught.value.hint


@pytest.mark.parametrize("address", PUBLIC)
async def test_a_name_that_leads_to_the_internet_is_resolved(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    answers(monkeypatch, address)

    assert await Guard().resolve("api.example.com", 443) == [ip_address(address)]


async def test_one_private_address_among_public_ones_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "8.8.8.8", "1.1.1.1", "10.0.0.1")

    with pytest.raises(SourceMisconfigured, match=r"leads to 10\.0\.0\.1"):
        await Guard().resolve("api.example.com", 443)


@pytest.mark.parametrize(
    ("allowed", "address"),
    [
        ("10.1.0.0/16", "10.1.2.3"),
        ("127.0.0.0/8", "::ffff:127.0.0.1"),
        ("::ffff:127.0.0.1/128", "::ffff:127.0.0.1"),
        ("127.0.0.1/32", "127.0.0.1"),
        ("::1/128", "::1"),
        ("10.0.0.0/8", "64:ff9b::10.0.0.1"),
        ("fd00::/8", "fd00:ec2::254"),
        ("10.0.0.0/8", "2002:a00:1::1"),
    ],
)
async def test_a_named_range_is_allowed(monkeypatch: pytest.MonkeyPatch, allowed: str, address: str) -> None:
    answers(monkeypatch, address)

    assert await Guard([allowed]).resolve("bank.internal", 22) == [ip_address(address)]


async def test_a_named_range_allows_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "10.2.0.1")

    with pytest.raises(SourceMisconfigured):
        await Guard(["10.1.0.0/16", "::/0"]).resolve("bank.internal", 22)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "127.0.1",
            "0177.0.0.1",
            "127.0.0.01",
            "0",
            "00",
            "0x",
            "1.2.3.4.",
        ),
        "\uff11\uff12\uff17.0.0.1",  # full-width digits, which IDNA makes 127.0.0.1
        "127\u30020\u30020\u30021",  # ideographic full stops
    ],
)
async def test_an_address_in_an_odd_spelling_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    asked = answers(monkeypatch, "8.8.8.8")

    with pytest.raises(SourceMisconfigured, match="odd spelling"):
        await Guard().resolve(host, 443)

    assert not asked


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            " ",
            "a b",
            "a\x00b",
            "a\nb",
            "user@host",
            "host:80",
            "host/path",
            "[::1]",
            "a..b",
            ".a",
            "-a",
            "a%b",
            "a" * 254,
        ),
        "\u2100.example",  # one character that IDNA spells a/c
        "x" * 64 + "\u00fc.example",
    ],
)
async def test_what_is_no_name_of_a_host_is_refused_before_anybody_is_asked(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    asked = answers(monkeypatch, "8.8.8.8")

    with pytest.raises(SourceMisconfigured, match="is no host's name"):
        await Guard().resolve(host, 443)

    assert not asked


@pytest.mark.parametrize(
    ("host", "asked_for"),
    [
        ("api.example.com", "api.example.com"),
        ("localhost.", "localhost."),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("\u24b6pi.example", "api.example"),
        ("8.8.8.8", "8.8.8.8"),
        ("2606:4700:0::1111", "2606:4700::1111"),
        ("_sftp.example", "_sftp.example"),
    ],
)
async def test_a_name_is_asked_for_in_ascii(monkeypatch: pytest.MonkeyPatch, host: str, asked_for: str) -> None:
    asked = answers(monkeypatch, "8.8.8.8")

    await Guard().resolve(host, 443)

    assert asked == [(asked_for, 443)]


async def test_the_answer_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    DNS rebinding: a public address for the check, a private one a moment later.
    """
    turns = iter([["8.8.8.8"], ["127.0.0.1"]])
    monkeypatch.setattr(network, "resolved", lambda host, port: [ip_address(each) for each in next(turns)])
    tried: list[str] = []

    async def sock_connect(_: object, where: tuple[str, int]) -> None:
        tried.append(where[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)

    with pytest.raises(SourceUnavailable, match=r"8\.8\.8\.8: connection refused"):
        await Guard().connect("rebinding.example", 443)

    assert tried == ["8.8.8.8"]


async def test_every_address_has_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "1.1.1.1", "2606:4700::1111", "8.8.8.8")
    tried: list[str] = []

    async def sock_connect(_: object, where: tuple[str, int]) -> None:
        tried.append(where[0])
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)

    with pytest.raises(SourceUnavailable, match="does not answer"):
        await Guard().connect("dead.example", 443, timeout_s=0.15)

    assert tried == ["1.1.1.1", "2606:4700::1111", "8.8.8.8"]


async def test_an_unknown_name_is_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolved(host: str, port: int) -> list[Address]:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr(network, "resolved", resolved)

    with pytest.raises(SourceUnavailable, match=r"nowhere\.example: Name or service not known"):
        await Guard().resolve("nowhere.example", 443)


async def test_a_name_server_that_keeps_silent_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Its lookups do not end; the connector says so, another one resolves, and no more than a few threads wait.
    """
    release = threading.Event()
    monkeypatch.setattr(network, "resolved", silent_until(release))
    stuck = Guard()
    try:
        for _ in range(8):
            with pytest.raises(SourceUnavailable, match="no answer from the name server within"):
                await stuck.resolve("silent.example", 443, timeout_s=0.01)
        with pytest.raises(SourceUnavailable, match="8 lookups do not come back"):
            await stuck.resolve("silent.example", 443, timeout_s=0.01)

        assert await Guard().resolve("fine.example", 443) == [IPv4Address("8.8.8.8")]
    finally:
        release.set()


def silent_until(release: threading.Event) -> Callable[[str, int], Sequence[Address]]:
    def resolved(host: str, port: int) -> Sequence[Address]:
        if host.startswith("silent"):
            release.wait(30)
        return [IPv4Address("8.8.8.8")]

    return resolved


def test_ranges_that_are_none_are_refused_by_the_configuration() -> None:
    assert NetworkConfig.model_validate({"allow_networks": ["10.0.0.0/8", "::1"]}).allow_networks
    for wrong in ("10.0.0.1/8", "host", "10.0.0.0/33"):
        with pytest.raises(ValidationError):
            NetworkConfig.model_validate({"allow_networks": [wrong]})


@given(st.ip_addresses(v=4))
def test_an_address_has_one_verdict_however_it_is_wrapped(address: IPv4Address) -> None:
    def verdict(text: str) -> bool:
        try:
            Guard().check(ip_address(text), "host")
        except SourceMisconfigured:
            return False
        return True

    high, low = divmod(int(address), 65_536)
    wrapped = (f"::ffff:{address}", f"64:ff9b::{address}", f"2002:{high:x}:{low:x}::1")

    assert {verdict(str(address)), *map(verdict, wrapped)} in ({True}, {False})
    if not address.is_global:
        assert not verdict(str(address))
