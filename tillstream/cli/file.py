"""Files that commands read: `connector.yaml`, and a JSON object of options."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError
from tillstream.cli.output import note
from tillstream.escape import escaped

if TYPE_CHECKING:
    from tillstream.control.document import Document

STDIN = Path("-")
_SUFFIXES = (".yaml", ".yml", ".json")
_WATCHES_A_FOLDER = "directory"  # the kind whose key of the same name is a path of this machine


def documents_of(files: Sequence[Path]) -> list[Document]:
    """
    The connectors that these files describe; `-` is standard input, a folder every file of connectors in it, by name.

    Raises:
        ConfigError: a file cannot be read, or what it says cannot be; a connector is described twice.
    """
    from dataclasses import replace

    from tillstream.control.document import documents

    found: list[Document] = []
    for file in (each for given in files for each in _within(given)):
        described = documents(_text(file), place="stdin" if file == STDIN else str(file))
        found += [replace(each, configuration=located(each.configuration, each.kind, file)) for each in described]
    places: dict[str, str] = {}
    for each in found:
        if each.name in places:
            raise ConfigError(f"{each.place}: name: {each.name!r} is described in {places[each.name]} already")
        places[each.name] = each.place
    return found


def object_of(file: Path) -> dict[str, Any]:
    """
    One JSON object.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        body = json.loads(_text(file))
    except ValueError as exc:
        raise ConfigError(f"{file}: cannot be read as JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise ConfigError(f"{file}: must hold one JSON object, holds {type(body).__name__}")
    return body


def located(configuration: Mapping[str, Any], kind: str, file: Path | None = None) -> dict[str, Any]:
    """
    A watched folder as an absolute path: what is relative here would be another folder to the worker.

    It is relative to the file that names it, or else to the working directory.
    """
    folder = configuration.get("directory")
    if kind != _WATCHES_A_FOLDER or not isinstance(folder, str) or not folder:
        return dict(configuration)
    base = "" if file is None or file == STDIN else os.path.dirname(os.path.abspath(file))  # noqa: PTH100, PTH120
    # not `resolve`: a link may point elsewhere tomorrow; not `Path.expanduser`: a stranger's `~name` is no error here
    path = os.path.abspath(os.path.join(base, os.path.expanduser(folder)))  # noqa: PTH100, PTH111, PTH118
    return {**configuration, "directory": path}


def warn_of_absence(configuration: Mapping[str, object], kind: str) -> None:
    """Say so where a watched folder is not there yet: that is no error, and seldom meant."""
    folder = configuration.get("directory")
    if kind == _WATCHES_A_FOLDER and isinstance(folder, str) and not Path(folder).is_dir():
        note(f"warning: there is no folder {escaped(folder)} here yet; its files are read once it is there")


def _within(given: Path) -> list[Path]:
    if given == STDIN or not given.is_dir():
        return [given]
    try:
        found = sorted(each for each in given.iterdir() if each.suffix in _SUFFIXES and not each.name.startswith("."))
    except OSError as exc:
        raise ConfigError(f"{given}: cannot be listed: {exc.strerror}", hint="name a folder that you may read") from exc
    if not found:
        raise ConfigError(f"{given}: holds no {', '.join(f'*{each}' for each in _SUFFIXES)}", hint="name files of it")
    return found


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(f"{file}: there is no such file", hint="name a file that is there, or `-` for stdin") from exc
    except (OSError, UnicodeDecodeError) as exc:
        said = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError(f"{file}: cannot be read: {said}", hint="name a file of text that you may read") from exc
