"""
OpenSSH's programs, and a server of them on loopback.

A program that is not installed is unpacked from Debian's package into the cache, which needs no root. As root, sshd
wants a user and a folder of its own: it gets them in a mount namespace, where nobody else sees them.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import asyncssh

from tillstream.embedded.home import default_cache
from tillstream.embedded.port import LOOPBACK, find_free

_STARTS_S = 20.0
_USER = "bank"
_UID = 65_534

# Binds what sshd looks up over the machine's own files, for itself alone.
_NAMESPACE = """
set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/shadow" /etc/shadow
mount -t tmpfs tmpfs /run
mkdir -m 755 /run/sshd
cp "$1/host_key" /run/host_key
chmod 600 /run/host_key
shift
exec "$@" -h /run/host_key
"""


@dataclass(frozen=True, slots=True)
class Sshd:
    """A running server. `key` is the file of the private key that lets in."""

    port: int
    username: str
    host_key: str
    key: Path
    pid: int


@cache
def program(name: str, places: tuple[str, ...], package: str, path: str) -> str:
    """The program: the system's, or Debian's package in the cache."""
    for folder in ("", *places):
        if found := shutil.which(f"{folder}/{name}" if folder else name):
            return found
    unpacked = unpack(package)
    return str(unpacked / path)


def sftp_server() -> str:
    """The program that answers SFTP, for whoever has the connection already."""
    places = ("/usr/lib/openssh", "/usr/lib/ssh", "/usr/libexec/openssh")
    return program("sftp-server", places, "openssh-sftp-server", "usr/lib/openssh/sftp-server")


@cache
def unpack(package: str) -> Path:
    """The folder in the cache that Debian's packages are unpacked into, with this one in it."""
    folder = default_cache(os.environ) / "openssh"
    done = folder / f".{package}"
    if not done.exists():
        draft = folder / f".{package}-{os.getpid()}"
        draft.mkdir(parents=True)
        try:
            subprocess.run(["apt-get", "download", "-qq", package], cwd=draft, check=True, capture_output=True)
            (archive,) = draft.glob("*.deb")
            subprocess.run(["dpkg", "-x", archive, folder], check=True, capture_output=True)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        done.touch()
    return folder


@contextlib.contextmanager
def running_sshd(folder: Path) -> Iterator[Sshd]:
    """OpenSSH's server, with its own SFTP inside, for one key. Its files lie in `folder`, which others may enter."""
    folder.mkdir(mode=0o755)
    host, user = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    host.write_private_key(folder / "host_key")
    user.write_private_key(folder / "user_key")
    user.write_public_key(folder / "authorized")
    (folder / "host_key").chmod(0o600)
    (folder / "user_key").chmod(0o600)
    port, log = find_free(), folder / "log"
    is_root = os.geteuid() == 0
    username = _USER if is_root else pwd.getpwuid(os.geteuid()).pw_name
    (folder / "config").write_text(
        f"Port {port}\nListenAddress {LOOPBACK}\nAuthorizedKeysFile {folder}/authorized\nStrictModes no\nUsePAM no\n"
        "PidFile none\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n"
    )
    command = [_sshd(), "-D", "-e", "-f", str(folder / "config")]
    if is_root:
        home = f"root:x:0:0:root:/root:/bin/sh\nsshd:x:{_UID - 1}:{_UID}::/run/sshd:/bin/false\n"
        (folder / "passwd").write_text(f"{home}{_USER}:x:{_UID}:{_UID}::{folder}:/bin/sh\n")
        (folder / "shadow").write_text(f"{_USER}:NP:20228:0:99999:7:::\nsshd:NP:20228:0:99999:7:::\n")
        command = ["unshare", "-m", "sh", "-c", _NAMESPACE, "sh", str(folder), *command]
    else:
        command += ["-h", str(folder / "host_key")]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **_libraries()})
    try:
        _wait(port, process, log)
        yield Sshd(port, username, host.get_fingerprint("sha256"), folder / "user_key", process.pid)
    finally:
        process.terminate()
        process.wait()


def _sshd() -> str:
    """The server by its absolute path, which it insists on."""
    return program("sshd", ("/usr/sbin", "/usr/local/sbin"), "openssh-server", "usr/sbin/sshd")


def _libraries() -> dict[str, str]:
    """Where a server that was unpacked finds the one library that only it needs."""
    if not _sshd().startswith(str(default_cache(os.environ))):
        return {}
    folder = unpack("libwrap0")
    return {"LD_LIBRARY_PATH": ":".join(str(found.parent) for found in folder.rglob("libwrap.so.0"))}


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + _STARTS_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"sshd does not start: {log.read_text()[-2_000:]}")
