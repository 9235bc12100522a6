"""
The way into an SFTP server: a checked address, a proven host key, and only then a login.

Nothing of the worker's user is used: no agent, no `~/.ssh`, no configuration file. A server whose key is not pinned, or
is another one, sees neither a user's name nor a secret.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import asyncssh

from connectors.network import Guard
from connectors.remote.options import Account
from connectors.remote.pin import KINDS, Pins
from connectors.remote.session import Session, words
from connectors.secret import Secrets
from schemas.errors import SourceMisconfigured, SourceUnauthorised, SourceUnavailable, TillError

KEEPALIVE_S = 15
_KEEPALIVES = 3  # unanswered ones after which a connection is dead

# The fastest first: AES has instructions of its own. Counter mode is for servers that have nothing better.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)


class Login:
    """Opens sessions of one account."""

    def __init__(self, account: Account, guard: Guard, secrets: Secrets) -> None:
        self._account = account
        self._guard = guard
        self._secrets = secrets

    async def open(self) -> Session:
        """
        A new session.

        Raises:
            SourceUnavailable: retry; the server cannot be reached now.
            SourceMisconfigured: pause; its address is not allowed, its key is not the pinned one, it has no SFTP.
            SourceUnauthorised: pause; it refuses the login.
        """
        pins, host = self._account.pins, self._account.host
        if not pins:
            raise unpinned(host)
        met: list[asyncssh.SSHKey] = []
        hung_up = 0
        while algorithms := _left(pins.kinds, met):
            before = len(met)
            try:
                return await self._open(algorithms, met)
            except asyncssh.HostKeyNotVerifiable:
                if len(met) == before:
                    break  # what it shows is no key that we know
            except (asyncssh.KeyExchangeFailed, _HungUp) as exc:
                # A server that has no key of these kinds says so, or just hangs up; as one does that is going down.
                hung_up += isinstance(exc, _HungUp)
                if not met:
                    raise await self._without_key(exc) from exc
                if hung_up != 1:
                    break
        raise self.mismatch(met)

    async def _without_key(self, exc: Exception) -> TillError:
        """Why it showed no key of the kinds that are pinned."""
        if self._account.pins.kinds != KINDS:
            try:
                shown = await self.host_keys()
            except TillError as other:
                return other
            if not any(fingerprint(key) in self._account.pins for key in shown):
                return self.mismatch(shown)
        return self._sorted(exc, f"connecting to {self._account.host}")

    def mismatch(self, met: Sequence[asyncssh.SSHKey]) -> SourceMisconfigured:
        """What is wrong with a server that shows these keys, none of which is pinned."""
        return SourceMisconfigured(
            f"the host key of {self._account.host} is {shown_keys(met)}, pinned is {self._account.pins}",
            hint="nothing was sent to it. If the server's operator confirms the new key, pin it as host_key and resume",
        )

    async def host_keys(self) -> list[asyncssh.SSHKey]:
        """
        A key of each kind that the server proves, without logging in.

        Raises:
            SourceUnavailable: retry. SourceMisconfigured: pause; its address is not allowed.
        """
        found = [await self._host_key(_left(KINDS, []))]
        while kinds := _left(KINDS, found):
            try:
                found.append(await self._host_key(kinds))
            except TillError:
                break  # it has no other, and says so or just hangs up
        return found

    async def _host_key(self, algorithms: Sequence[str]) -> asyncssh.SSHKey:
        connection = await self.connect()
        what = f"asking {self._account.host} for its host key"
        asking = asyncssh.get_server_host_key(
            sock=connection, config=None, server_host_key_algs=algorithms, client_version="Tillstream"
        )
        try:
            async with asyncio.timeout(self._account.answer_s):
                key = await asking
        except TimeoutError as exc:
            raise _silent(what, self._account.answer_s) from exc
        except (asyncssh.Error, OSError, ValueError) as exc:
            raise self._sorted(exc, what) from exc
        finally:
            connection.close()
        if key is None:
            raise SourceUnavailable(f"{what}: it shows none")
        return key

    async def connect(self) -> socket.socket:
        """
        A connection to the server's checked address.

        Raises:
            SourceUnavailable: retry. SourceMisconfigured: pause; its address is not allowed.
        """
        return await self._guard.connect(self._account.host, self._account.port, timeout_s=self._account.connect_s)

    async def _open(self, algorithms: Sequence[str], met: list[asyncssh.SSHKey]) -> Session:
        """A session, if the server proves a pinned key of these kinds; what it shows instead is added to `met`."""
        key, password = await self._key(), self._secrets.resolve(self._account.password)
        connection = await self.connect()
        what = f"logging in to {self._account.host}"
        gatekeeper = _Gatekeeper(self._account.pins, met)
        try:
            async with asyncio.timeout(self._account.answer_s):
                logged_in = await asyncssh.connect(
                    sock=connection,
                    host=self._account.host,
                    port=self._account.port,
                    client_factory=lambda: gatekeeper,
                    known_hosts=([], [], []),
                    server_host_key_algs=algorithms,
                    config=None,
                    agent_path=None,
                    client_keys=[key] if key else None,
                    password=password or None,
                    username=self._account.username,
                    client_host_keys=None,
                    host_based_auth=False,
                    gss_kex=False,
                    gss_auth=False,
                    x509_trusted_certs=None,
                    encryption_algs=list(CIPHERS),
                    compression_algs=None,
                    keepalive_interval=KEEPALIVE_S,
                    keepalive_count_max=_KEEPALIVES,
                    login_timeout=self._account.answer_s + 1,
                    client_version="Tillstream",
                )
        except TimeoutError as exc:
            connection.close()
            raise _silent(what, self._account.answer_s) from exc
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed):
            connection.close()
            raise
        except (asyncssh.ConnectionLost, OSError) as exc:
            connection.close()
            if gatekeeper.was_shown_a_key:
                raise self._sorted(exc, what) from exc
            raise _HungUp(words(exc)) from exc
        except (asyncssh.Error, ValueError) as exc:
            connection.close()
            raise self._sorted(exc, what) from exc
        except BaseException:
            connection.close()
            raise
        return await self._session(logged_in)

    async def _session(self, connection: asyncssh.SSHClientConnection) -> Session:
        what = f"starting SFTP on {self._account.host}"
        try:
            async with asyncio.timeout(self._account.answer_s):
                client = await connection.start_sftp_client()
        except TimeoutError as exc:
            connection.abort()
            raise _silent(what, self._account.answer_s) from exc
        except asyncssh.ChannelOpenError as exc:
            connection.abort()
            raise SourceMisconfigured(
                f"{what}: {words(exc)}", hint="ask the server's operator whether this user may use SFTP"
            ) from exc
        except (asyncssh.Error, OSError) as exc:
            connection.abort()
            raise self._sorted(exc, what) from exc
        except BaseException:
            connection.abort()
            raise
        return Session(connection, client, answer_s=self._account.answer_s)

    async def _key(self) -> asyncssh.SSHKey | None:
        text = self._secrets.resolve(self._account.private_key)
        if not text:
            return None
        passphrase = self._secrets.resolve(self._account.passphrase)
        whole = text if text.endswith("\n") else text + "\n"
        try:  # in a thread: a passphrase is made into a key slowly, on purpose
            return await asyncio.to_thread(asyncssh.import_private_key, whole, passphrase or None)
        except asyncssh.KeyEncryptionError as exc:
            raise SourceMisconfigured(
                f"{self._account.private_key} cannot be decrypted", hint="is the passphrase the one of this key?"
            ) from exc
        except (asyncssh.KeyImportError, ValueError) as exc:
            locked = "passphrase" in str(exc).lower()
            told = "it needs a passphrase" if locked else "it is no OpenSSH or PEM private key"
            raise SourceMisconfigured(
                f"{self._account.private_key} cannot be used: {told}",
                hint="give the private key file as `ssh-keygen` wrote it, and its passphrase, if it has one",
            ) from exc

    def _sorted(self, exc: Exception, what: str) -> TillError:
        if isinstance(exc, TillError):
            return exc
        if isinstance(exc, asyncssh.KeyExchangeFailed):
            return SourceMisconfigured(
                f"{self._account.host} and we have no algorithms in common: {words(exc)}",
                hint="ask the server's operator for current ones",
            )
        if isinstance(exc, asyncssh.PermissionDenied | asyncssh.IllegalUserName):
            by = [name for name in ("private_key", "password") if getattr(self._account, name)]
            return SourceUnauthorised(
                f"{self._account.host} refuses the login of {self._account.username} by {' and '.join(by)}"
            )
        if isinstance(exc, ValueError) and "local username" in str(exc):
            return SourceMisconfigured("the worker's system user has no name", hint="set LOGNAME in its environment")
        return SourceUnavailable(f"{what}: {words(exc)}")


class _HungUp(Exception):
    """The server closed the connection before it showed a key."""


class _Gatekeeper(asyncssh.SSHClient):
    """Lets nobody in but a server with a pinned key; asyncssh asks before it logs in."""

    def __init__(self, pins: Pins, met: list[asyncssh.SSHKey]) -> None:
        self._pins = pins
        self._met = met
        self.was_shown_a_key = False

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:  # noqa: ARG002
        """Whether it is pinned."""
        self.was_shown_a_key = True
        if fingerprint(key) in self._pins:
            return True
        self._met.append(key)
        return False


def unpinned(host: str, keys: Sequence[asyncssh.SSHKey] = ()) -> SourceMisconfigured:
    """Why a server that nobody vouches for is not used, and what to do about it."""
    if not keys:
        return SourceMisconfigured(
            f"no host key of {host} is pinned", hint="run the connector's check: it tells the fingerprint to pin"
        )
    return SourceMisconfigured(
        f"no host key of {host} is pinned; it shows {shown_keys(keys)}",
        hint=f"compare it with what the server's operator tells you, then set host_key: {fingerprint(keys[0])}",
    )


def _left(kinds: Sequence[Sequence[str]], met: Sequence[asyncssh.SSHKey]) -> list[str]:
    """The algorithms of kinds of which no key was met."""
    known = {key.get_algorithm() for key in met}
    return [algorithm for kind in kinds if not known.intersection(kind) for algorithm in kind]


def fingerprint(key: asyncssh.SSHKey) -> str:
    """As `ssh-keygen -l` shows it."""
    return key.get_fingerprint("sha256")


def shown_keys(keys: Sequence[asyncssh.SSHKey]) -> str:
    """Keys for people: fingerprint and kind."""
    return ", ".join(f"{fingerprint(key)} ({key.get_algorithm()})" for key in keys)


def _silent(what: str, seconds: float) -> SourceUnavailable:
    return SourceUnavailable(f"timeout in {what}: the server kept silent for {seconds:g} s")
