"""
The secrets that connectors name by reference.

A worker gives a connector only what its settings allow: variables of listed names, files below one folder. A reference
to anything else says that it is not allowed, and nothing of whether it is there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from connectors.secret import REFERENCE
from schemas.errors import SourceMisconfigured
from tillstream.redaction import SHORTEST, process_redactor

if TYPE_CHECKING:
    from tillstream.config import Settings

MAX_BYTES = 65_536  # of a secret in a file; a private key has a few thousand


def allows(names: Iterable[str], variable: str) -> bool:
    """Whether a variable is among these names, or begins like one that ends in `*`."""
    return any(
        variable.startswith(name[:-1]) and len(name) > 1 if name.endswith("*") else variable == name for name in names
    )


class WorkerSecrets:
    """
    The secrets that this worker's connectors may use, read anew each time they are asked for.

    `names` are variables of the environment, or beginnings of names that end in `*`. `register` is told of each value
    before it is given, so that no line can hold it. `learn` is told of those that are worth something for a while only.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        folder: Path | None,
        register: Callable[[Iterable[str]], None],
        learn: Callable[[str], None],
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._names = tuple(names)
        self._folder = folder
        self._register = register
        self._environ = os.environ if environ is None else environ
        self.learn = learn

    def resolve(self, reference: str) -> str:
        """
        What the reference stands for; the empty text for the empty one.

        Raises:
            SourceMisconfigured: pause; it is not allowed here, not there, or no text that can be kept secret.
        """
        if not reference:
            return ""
        match = REFERENCE.fullmatch(reference)
        if match is None:
            raise SourceMisconfigured("a secret is given by reference: ${env:NAME} or ${file:NAME}")
        value = self._of_environment(match["env"]) if match["env"] else self._of_file(match["file"])
        if len(value.strip()) < SHORTEST:
            raise SourceMisconfigured(
                f"the secret {reference} has fewer than {SHORTEST} characters",
                hint="a text that short cannot be kept out of logs; choose a longer one",
            )
        self._register([value])
        return value

    def _of_environment(self, name: str) -> str:
        if not allows(self._names, name):
            raise SourceMisconfigured(
                f"${{env:{name}}} is not a secret that connectors may use here",
                hint="name it in the setting secrets.env of the connector workers",
            )
        value = self._environ.get(name)
        if value is None:
            raise SourceMisconfigured(
                f"the variable {name} is not set", hint="set it in the environment of the connector workers"
            )
        return value

    def _of_file(self, name: str) -> str:
        if self._folder is None:
            raise SourceMisconfigured(
                f"${{file:{name}}} is not a secret that connectors may use here",
                hint="name a folder in the setting secrets.folder of the connector workers",
            )
        if {".", ".."} & set(name.split("/")):
            _refuse_file(name)
        try:
            folder = self._folder.resolve(strict=True)
            # as Kubernetes mounts them, files are links: where they lead is what counts
            path = (folder / name).resolve(strict=True)
            if not path.is_relative_to(folder) or not path.is_file():  # opening a pipe would wait for its writer
                _refuse_file(name)
            return _text_of(path, name)
        except (OSError, RuntimeError) as exc:
            raise SourceMisconfigured(
                f"the secret file {name} cannot be read: {getattr(exc, 'strerror', None) or 'its links go round'}",
                hint=f"put it below {self._folder}, readable by the connector workers",
            ) from None


def worker_secrets(settings: Settings) -> WorkerSecrets:
    """The secrets that connectors may use in this process, told to its register."""
    register = process_redactor()
    return WorkerSecrets(
        names=settings.secrets.names,
        folder=folder_of(settings),
        register=register.register,
        learn=register.learn,
    )


def folder_of(settings: Settings) -> Path:
    """The workers' folder of secrets."""
    return settings.secrets.folder or settings.home / "secrets"


def _text_of(path: Path, name: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise SourceMisconfigured(f"the secret file {name} has more than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise SourceMisconfigured(f"the secret file {name} is no text in UTF-8") from None
    if "\x00" in text:
        raise SourceMisconfigured(f"the secret file {name} holds NUL")
    return text.removesuffix("\n").removesuffix("\r")


def _refuse_file(name: str) -> NoReturn:
    raise SourceMisconfigured(f"${{file:{name}}} is not a file below the workers' folder of secrets")
