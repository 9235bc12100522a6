"""The check, step by step, and configurations that are refused."""

from __future__ import annotations

import socket

import pytest

from connectors import sftp
from tests.integration.sftp.world import HEADER, World, drop, row
from tests.sftp_server import PASSWORD, new_key


async def test_a_check_names_files_and_reads_a_first_one(world: World) -> None:
    drop(world.folder, "a.csv", HEADER + row("a"))
    drop(world.folder, "b.csv", HEADER + row("b") + "c,payin,succeeded,EUR,1.5,\n", age=1)

    steps = await world.check()

    assert [step.name for step in steps] == [
        "find the address",
        "connect",
        "prove the host key",
        "log in",
        "list the folder",
        "read a file",
    ]
    assert all(step.ok for step in steps)
    assert steps[4].found == ("a.csv", "b.csv")
    assert "b.csv: 2 records in its first" in steps[5].detail
    assert "1 would be rejected: row 2" in steps[5].detail
    assert world.server.requests.count(("scandir", "/")) == 1


async def test_a_check_tells_what_keeps_a_file_from_being_read(world: World) -> None:
    drop(world.folder, "a.csv", "TXNID,CREDIT_AMT\n1,2\n")

    *others, last = await world.check()

    assert all(step.ok for step in others)
    assert not last.ok
    assert "missing" in last.detail or "has no" in last.detail
    assert "columns" in last.hint


async def test_a_check_says_at_which_step_it_failed(world: World) -> None:
    world.secrets["${env:SFTP_PASS}"] = "wrong-password-7f"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        closed = nobody.getsockname()[1]

    steps = {
        "log in": await world.check(),
        "prove the host key": await world.check(host_key=new_key().get_fingerprint("sha256")),
        "connect": await world.check(port=closed),
        "find the address": await world.check(allow_networks=[]),
    }

    for name, found in steps.items():
        assert [step.name for step in found if not step.ok] == [name]
        assert found[-1].detail
        assert found[-1].hint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": ""}, "host"),
        ({"username": ""}, "username"),
        ({"password": ""}, "give a password or a private_key"),
        ({"password": PASSWORD}, "by reference"),
        ({"passphrase": "${env:X}"}, "a passphrase is for a private_key"),
        ({"host_key": "trust me"}, "SHA256:"),
        ({"pattern": "a/b"}, "no slash"),
        ({"checksum": "required"}, "checksum_ext"),
        ({"checksum": "await"}, "needs checksum_ext"),
        ({"grace_s": 60}, "grace_s is for checksum: await"),
        ({"grace_s": 60, "checksum": "required", "checksum_ext": ".sha256"}, "grace_s is for checksum: await"),
        ({"after_read": "move"}, "move_to"),
        ({"move_to": "done"}, "move_to"),
        ({"after_read": "move", "move_to": "."}, "another folder"),
        ({"port": 0}, "port"),
        ({"remote_path": "a\0b"}, "NUL"),
        ({"timezone": "Mars/Olympus"}, "time zone"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_config_is_refused_before_any_io_and_shows_no_secret(change: dict[str, object], words: str) -> None:
    right = {"host": "bank.example", "username": "u", "password": "${env:P}"}
    sftp.SftpConfig.model_validate(right)

    with pytest.raises(ValueError, match=words) as caught:
        sftp.SftpConfig.model_validate({**right, **change})

    assert PASSWORD not in str(caught.value).replace(f"input_value='{PASSWORD}'", "")
