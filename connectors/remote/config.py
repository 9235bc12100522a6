"""The configuration of an SFTP connector."""

from __future__ import annotations

import os
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from connectors.files.config import FilesConfig
from connectors.network import NetworkConfig
from connectors.remote.entry import join
from connectors.remote.options import Account, AfterRead, Checksum, Rules
from connectors.remote.pattern import NamePattern
from connectors.remote.pin import Pins
from connectors.secret import SecretReference

PORT = 22
_MIB = 1_048_576


class SftpConfig(FilesConfig, NetworkConfig):
    """A folder on an SFTP server."""

    host: str = Field("", description="Name or address of the server.", validate_default=True)
    port: int = Field(PORT, ge=1, le=65_535, description="Its port.")
    username: str = Field("", description="User to log in as.", validate_default=True)
    password: SecretReference = Field("", description="The user's password, by reference: `${env:NAME}`.")
    private_key: SecretReference = Field(
        "", description="The user's private key, OpenSSH or PEM, by reference: `${file:NAME}`."
    )
    passphrase: SecretReference = Field("", description="What the private key is encrypted with, by reference.")
    host_key: str = Field(
        "",
        description="The server's host key: `SHA256:…` or a public key line; several, comma-separated, while it is "
        "being changed. Without it nothing is read; the check tells the one to compare and pin.",
    )
    remote_path: str = Field(".", min_length=1, description="Folder on the server; relative to the user's own.")
    pattern: str = Field(
        "*", min_length=1, description="Names to read: `*`, `?`, and one date such as `YYYYMMDD` or `DD-MM-YYYY`."
    )
    look_back_days: int | None = Field(
        None, ge=0, le=36_500, description="Days before today, in the time zone, whose files are read; empty: all."
    )
    checksum_ext: str = Field("", description="What a file's name and `.sha256`, say, name: the file of its SHA-256.")
    checksum: Checksum = Field(
        Checksum.AWAIT,
        description="Without its checksum a file is never read where this is `required`, a problem from the start, or "
        "`await`, a problem after `grace_s`; `off` reads it. Needs `checksum_ext`.",
    )
    grace_s: float = Field(
        7_200.0, ge=0, le=604_800, description="Seconds after the file's time that a checksum is awaited."
    )
    after_read: AfterRead = Field(
        AfterRead.LEAVE, description="What becomes of a file once all of it is durable: `leave`, `move` or `delete`."
    )
    move_to: str = Field("", description="Folder that files are moved to; relative to `remote_path`.")
    staging_mib: int = Field(
        4_096, ge=1, le=1_048_576, description="MiB of downloads that wait to be read; one file may be larger."
    )

    @field_validator("host", "username")
    @classmethod
    def _is_there(cls, value: str) -> str:
        if not value:
            raise ValueError("is missing")
        if not value.isprintable():
            raise ValueError("has characters that are none")
        return value

    @field_validator("host_key")
    @classmethod
    def _is_a_pin(cls, value: str) -> str:
        Pins.parse(value)
        return value

    @field_validator("pattern")
    @classmethod
    def _is_a_pattern(cls, value: str) -> str:
        NamePattern(value)
        return value

    @field_validator("remote_path", "move_to")
    @classmethod
    def _is_a_path(cls, value: str) -> str:
        if "\0" in value:
            raise ValueError("a path holds no NUL")
        return value

    @field_validator("checksum_ext")
    @classmethod
    def _is_a_suffix(cls, value: str) -> str:
        if "/" in value or "\0" in value:
            raise ValueError("a suffix has no slash")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> SftpConfig:
        if not self.password and not self.private_key:
            raise ValueError("give a password or a private_key, by reference")
        if self.passphrase and not self.private_key:
            raise ValueError("a passphrase is for a private_key")
        if not self.checksum_ext and "checksum" in self.model_fields_set and self.checksum is not Checksum.OFF:
            raise ValueError(f"checksum: {self.checksum} needs checksum_ext, such as .sha256")
        if "grace_s" in self.model_fields_set and self.downloads.checksum is not Checksum.AWAIT:
            raise ValueError("grace_s is for checksum: await, with checksum_ext; leave it out")
        if (self.after_read is AfterRead.MOVE) != bool(self.move_to):
            raise ValueError("after_read: move and move_to belong together")
        if self.move_to and os.path.normpath(f"{self.remote_path}/{self.move_to}") == os.path.normpath(
            self.remote_path
        ):
            raise ValueError("move_to is another folder than remote_path")
        return self

    @property
    def folder(self) -> bytes:
        """The remote folder, as the server is asked for it."""
        return os.fsencode(self.remote_path)

    @property
    def target(self) -> bytes:
        """Where files are moved to."""
        return join(self.folder, os.fsencode(self.move_to))

    @property
    def place(self) -> str:
        """The folder in lineage; a path that begins at the user's own folder has a tilde, as curl writes it."""
        port = "" if self.port == PORT else f":{self.port}"
        path = self.remote_path if self.remote_path.startswith("/") else f"/~/{self.remote_path}"
        return f"sftp://{self.host}{port}{path}".removesuffix("/.").rstrip("/")

    @property
    def zone(self) -> ZoneInfo:
        """Where a day begins and ends."""
        return ZoneInfo(self.timezone or "UTC")

    @property
    def account(self) -> Account:
        """Where to log in, and as whom."""
        return Account(
            self.host,
            self.port,
            self.username,
            self.password,
            self.private_key,
            self.passphrase,
            Pins.parse(self.host_key),
            connect_s=self.connect_s,
            answer_s=self.answer_s,
        )

    @property
    def downloads(self) -> Rules:
        """What is wanted of downloads."""
        checksum = self.checksum if self.checksum_ext else Checksum.OFF
        return Rules(self.folder, checksum, self.checksum_ext, self.grace_s, self.staging_mib * _MIB)
