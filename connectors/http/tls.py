"""TLS as every connection of the HTTP source has it: 1.2 at least, the server's name and certificate verified."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

from connectors.log import extra
from schemas.errors import SourceMisconfigured

logger = logging.getLogger(__name__)


def context(*, authorities: str, certificate: str, key: str, verify: bool, production: bool) -> ssl.SSLContext:
    """
    A client's context. `authorities` (PEM) replace the system's; `certificate` and `key` (PEM) are what we show.

    Raises:
        SourceMisconfigured: what was given is no PEM, a key does not fit, or verification is off in production.
    """
    if not verify and production:
        raise SourceMisconfigured(
            "verify_tls: false is refused in production", hint="name the server's authority in tls_authorities instead"
        )
    if verify and not (authorities or certificate):
        return _usual()
    try:
        made = ssl.create_default_context(cadata=authorities or None)
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate:
            with _file(certificate + "\n" + key) as path:
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
