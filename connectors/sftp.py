"""
Files on an SFTP server (seed 004's bank files): found by name and day, verified by checksum, each content read once.

A file is downloaded when it is at rest, into a folder of the worker's own, and read from there. What is read twice is
nothing: a file's size and time tell that it is known, its SHA-256 that its content is. A server whose host key is not
pinned is not logged in to. What becomes of a file afterwards happens only once all of it is durable.
"""

from __future__ import annotations

from connectors.context import SourceContext
from connectors.files.cursor import model as cursor_model
from connectors.remote.config import SftpConfig
from connectors.remote.note import EXAMPLE, NOTES
from connectors.source import Source
from connectors.spec import SourceSpec

__all__ = ["SPEC", "SftpConfig"]


def _make(config: SftpConfig, context: SourceContext) -> Source:
    from connectors.remote.source import SftpSource  # noqa: PLC0415 asyncssh is for those who use it

    return SftpSource(config, context)


SPEC = SourceSpec(
    kind="sftp",
    summary="Records of files on an SFTP server: CSV, JSON, JSON lines, found by date, verified by checksum.",
    config=SftpConfig,
    factory=_make,
    resumes_from="byte offset and row in each file, by content; a download that was cut goes on where it stopped, as "
    "long as the worker lives",
    takes_dates=True,
    cursor=cursor_model,
    example=EXAMPLE,
    notes=NOTES,
)
