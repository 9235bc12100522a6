"""TLS as every connection of the HTTP source has it: 1.2 at least, the server's name and certificate verified."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from connectors.log import extra
from connectors.ports import Clock
from schemas.errors import SourceMisconfigured

logger = logging.getLogger(__name__)

_GRACE_S = 60.0  # so long a certificate may not fit its key: whoever replaces both does it one after the other


class Pems(NamedTuple):
    """What a context is made of. `authorities` replace the system's; `certificate` and `key` are what we show."""

    authorities: str = ""
    certificate: str = ""
    key: str = ""


class Contexts:
    """The context that holds now. `read` is asked each time, so that changed files need no restart."""

    def __init__(self, read: Callable[[], Pems], *, verify: bool, production: bool, clock: Clock) -> None:
        self._read = read
        self._verify = verify
        self._production = production
        self._clock = clock
        self._pems: Pems | None = None
        self._context: ssl.SSLContext | None = None
        self._unusable_since_s: float | None = None

    def now(self) -> ssl.SSLContext:
        """
        The context of the present files, or for a while that of the last ones that could be used.

        Raises:
            SourceMisconfigured: pause; as `context`, or a secret cannot be had.
        """
        pems = self._read()
        if self._context is not None and pems == self._pems:
            self._unusable_since_s = None
            return self._context
        try:
            made = context(pems, verify=self._verify, production=self._production)
        except SourceMisconfigured as exc:
            return self._last(exc)
        self._pems, self._context, self._unusable_since_s = pems, made, None
        return made

    def _last(self, exc: SourceMisconfigured) -> ssl.SSLContext:
        now_s = self._clock.monotonic()
        if self._unusable_since_s is None:
            self._unusable_since_s = now_s
            logger.warning("TLS files were changed and cannot be used", extra=extra(error=exc, hint=exc.hint))
        if self._context is None or now_s - self._unusable_since_s > _GRACE_S:
            raise exc
        return self._context


def context(pems: Pems, *, verify: bool, production: bool) -> ssl.SSLContext:
    """
    A client's context.

    Raises:
        SourceMisconfigured: what was given is no PEM, a key does not fit, or verification is off in production.
    """
    if not verify and production:
        raise SourceMisconfigured(
            "verify_tls: false is refused in production", hint="name the server's authority in tls_authorities instead"
        )
    if verify and not (pems.authorities or pems.certificate):
        return _usual()
    try:
        made = ssl.create_default_context(cadata=pems.authorities or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if pems.certificate:
            with _file(pems.certificate + "\n" + pems.key) as path:
                made.load_cert_chain(path, password="")  # or it would ask a terminal
    except (ssl.SSLError, OSError, ValueError) as exc:
        reason = getattr(exc, "reason", None) or type(exc).__name__
        raise SourceMisconfigured(
            f"the TLS files cannot be used: {reason}", hint="each is PEM; the key is that of the certificate, unlocked"
        ) from None
    if not verify:
        logger.warning("THE SERVER IS NOT VERIFIED: whoever stands between may read and change all", extra=extra())
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


@functools.cache
def _usual() -> ssl.SSLContext:
    """The context of nearly everybody: to read the system's authorities takes a tenth of a second."""
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


@contextlib.contextmanager
def _file(text: str) -> Iterator[str]:
    """A file that only this user can read, for the moment in which the library loads it."""
    descriptor, name = tempfile.mkstemp(prefix="till-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        yield name
    finally:
        Path(name).unlink()
