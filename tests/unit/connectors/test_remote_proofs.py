"""What proves a server and a file: pinned host keys, checksums."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import asyncssh
import pytest

from connectors.remote.pin import KINDS, Pins
from connectors.remote.sidecar import expected_sha256

DIGEST = hashlib.sha256(b"content").hexdigest()
OTHER = hashlib.sha256(b"other").hexdigest()


@pytest.mark.parametrize("algorithm", ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"])
def test_a_key_is_pinned_by_its_fingerprint_or_by_itself(algorithm: str) -> None:
    key = asyncssh.generate_private_key(algorithm)
    line = key.export_public_key().decode().strip()
    fingerprint = key.get_fingerprint("sha256")

    for text in (fingerprint, line, f"{line} a comment", f"bank.example {line}", f"[bank.example]:2222 {line}"):
        assert fingerprint in Pins.parse(text), text
    assert len(Pins.parse(line).kinds) == 1
    assert Pins.parse(fingerprint).kinds == tuple(KINDS)


def test_two_keys_are_pinned_while_one_replaces_the_other() -> None:
    keys = [asyncssh.generate_private_key("ssh-ed25519") for _ in range(2)]

    pins = Pins.parse(", ".join(key.get_fingerprint("sha256") for key in keys))

    assert all(key.get_fingerprint("sha256") in pins for key in keys)


def test_our_fingerprints_are_openssh_s(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ecdsa-sha2-nistp521")
    key.write_public_key(tmp_path / "key.pub")
    told = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], capture_output=True, text=True, check=True)

    (fingerprint,) = Pins.parse((tmp_path / "key.pub").read_text()).fingerprints

    assert told.stdout.split()[1] == fingerprint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", "MD5"),
        ("MD5:16:27:ac:a5:76:28:2d:36:63:1b:56:4d:eb:df:a6:48", "MD5"),
        ("SHA256:short", "SHA256:…"),
        ("ssh-ed25519 !!!", "SHA256:…"),
        ("ssh-ed25519 c3NoLXJzYQ==", "SHA256:…"),
        ("yes", "SHA256:…"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAA==", "ssh-dss"),
    ],
)
def test_what_proves_nothing_is_no_pin(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Pins.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        DIGEST,
        DIGEST.upper(),
        f"{DIGEST}\n",
        f"  {DIGEST}\r\n\r\n",
        f"\ufeff{DIGEST}",
        f"{DIGEST}  a.csv\n",
        f"{DIGEST} *a.csv\n",
        f"{DIGEST}\ta.csv\r\n",
        f"{DIGEST}  ./out/a.csv\n",
        f"{OTHER}  b.csv\n{DIGEST}  a.csv\n",
        f"SHA256 (a.csv) = {DIGEST}\n",
    ],
)
def test_every_form_of_checksum_file_is_read(text: str) -> None:
    assert expected_sha256(text.encode(), b"a.csv") == DIGEST


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        (f"{DIGEST}  b.csv\n", "another file"),
        (f"{DIGEST}  xa.csv\n", "another file"),
        (DIGEST[:-1], "no SHA-256"),
        ("d41d8cd98f00b204e9800998ecf8427e  a.csv\n", "no SHA-256"),
        ("<html>login</html>", "no SHA-256"),
        (f"{DIGEST}  a.csv\n{OTHER}  a.csv\n", "two different"),
        (f"{DIGEST}\n{OTHER}\n", "no SHA-256"),
    ],
)
def test_a_file_that_gives_no_checksum_is_told(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        expected_sha256(text.encode(), b"a.csv")


@pytest.mark.parametrize(
    "name", ["plain.csv", "two words.csv", "*star.csv", "new\nline.csv", "back\\slash.csv", "größe"]
)
def test_what_sha256sum_writes_is_understood(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"content")

    for option in ("--text", "--binary", "--tag"):
        done = subprocess.run(["sha256sum", option, name], cwd=tmp_path, capture_output=True, check=True)
        assert expected_sha256(done.stdout, name.encode()) == DIGEST, done.stdout
