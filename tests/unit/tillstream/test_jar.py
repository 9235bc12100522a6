from __future__ import annotations

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from schemas.errors import StackError
from tillstream.embedded.jar import Jar, class_path, is_intact, locked_jars

CONTENTS = {"org.example:one:1.0": b"one", "org.example:two:2.0": b"two"}
JARS = tuple(Jar(name, hashlib.sha256(content).hexdigest(), len(content)) for name, content in CONTENTS.items())


class Repository:
    """Delivers the two jars, or an altered one; counts what it delivered."""

    def __init__(self, *, alter: str | None = None) -> None:
        self.alter = alter
        self.delivered: list[str] = []

    def __call__(self, jar: Jar, folder: Path) -> Path:
        self.delivered.append(jar.coordinates)
        path = folder / jar.coordinates.replace(":", "-")
        content = CONTENTS[jar.coordinates]
        path.write_bytes(content[:-1] + b"?" if jar.coordinates == self.alter else content)
        return path


def test_the_lock_pins_every_jar_by_exact_coordinates_and_sha256():
    jars = locked_jars()

    assert len(jars) > 40
    assert all(re.fullmatch(r"[\w.-]+:[\w.-]+:[\w.-]+", jar.coordinates) for jar in jars)
    assert all(re.fullmatch(r"[0-9a-f]{64}", jar.sha256) for jar in jars)
    assert sum(jar.size_bytes for jar in jars) < 50e6


def test_the_lock_holds_one_version_of_kafka():
    versions = {
        jar.coordinates.split(":")[2] for jar in locked_jars() if jar.coordinates.startswith("org.apache.kafka:")
    }

    assert versions == {"4.3.1"}


def test_the_lock_holds_no_address():
    assert not any("//" in jar.coordinates for jar in locked_jars())


def test_jars_are_fetched_once(tmp_path: Path):
    repository = Repository()

    first = class_path(tmp_path, fetch=repository, jars=JARS)
    second = class_path(tmp_path, fetch=repository, jars=JARS)

    assert first == second
    assert [path.read_bytes() for path in first] == [b"one", b"two"]
    assert sorted(repository.delivered) == sorted(CONTENTS)


def test_a_cached_jar_with_a_flipped_byte_is_fetched_again(tmp_path: Path):
    one, _ = class_path(tmp_path, fetch=Repository(), jars=JARS)
    one.write_bytes(bytes([one.read_bytes()[0] ^ 1]) + one.read_bytes()[1:])
    repository = Repository()

    class_path(tmp_path, fetch=repository, jars=JARS)

    assert repository.delivered == ["org.example:one:1.0"]
    assert one.read_bytes() == b"one"


def test_a_fetched_jar_that_differs_from_the_lock_never_reaches_the_cache(tmp_path: Path):
    with pytest.raises(StackError, match=r"org\.example:two:2\.0 is not the file that jars\.lock pins"):
        class_path(tmp_path, fetch=Repository(alter="org.example:two:2.0"), jars=JARS)

    assert not any(
        is_intact(path, JARS[1]) or path.read_bytes() == b"tw?" for path in tmp_path.iterdir() if path.is_file()
    )
    assert list(tmp_path.glob(".fetch-*")) == []


def test_several_starts_at_once_share_one_cache(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: class_path(tmp_path, fetch=Repository(), jars=JARS), range(32)))

    assert len(set(answers)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(jar.file_name for jar in JARS)


def test_a_cache_that_cannot_be_written_says_which_variable_moves_it(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(StackError) as caught:
        class_path(tmp_path / "file" / "jars", fetch=Repository(), jars=JARS)

    assert "TILL_CACHE" in caught.value.hint
