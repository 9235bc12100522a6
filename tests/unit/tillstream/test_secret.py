from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from schemas.errors import SourceMisconfigured
from tillstream.secret import MAX_BYTES, WorkerSecrets, allows

CANARY = "canary-4711"


class World:
    """A worker's secrets, and what its register was told."""

    def __init__(self, folder: Path | None, names: Sequence[str] = ("TILL_SECRET_*", "EXACT"), **environ: str) -> None:
        self.told: list[str] = []
        self.secrets = WorkerSecrets(
            names=names, folder=folder, register=self.told.extend, learn=self.told.append, environ=environ
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "secrets"
    (inside / "axis").mkdir(parents=True)
    (inside / "axis" / "password").write_text(f"{CANARY}\n")
    (tmp_path / "outside").write_text(CANARY)
    return inside


def refusal(world: World, reference: str) -> SourceMisconfigured:
    with pytest.raises(SourceMisconfigured) as caught:
        world.secrets.resolve(reference)
    assert CANARY not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
    assert not world.told
    return caught.value


@pytest.mark.parametrize("name", ["TILL_SECRET_AXIS", "EXACT"])
def test_a_variable_on_the_list_is_given_and_registered(name: str) -> None:
    world = World(None, **{name: CANARY})

    assert world.secrets.resolve(f"${{env:{name}}}") == CANARY
    assert world.told == [CANARY]


@pytest.mark.parametrize("name", ["PATH", "TILL_SECRE", "EXACTLY", "exact", "till_secret_axis"])
def test_a_variable_that_no_list_names_is_refused_whether_it_is_set_or_not(name: str) -> None:
    refused = refusal(World(None, **{name: CANARY}), f"${{env:{name}}}")

    assert str(refused) == str(refusal(World(None), f"${{env:{name}}}"))
    assert "secrets.env" in refused.hint


def test_a_variable_that_is_not_set_says_so() -> None:
    assert str(refusal(World(None), "${env:EXACT}")) == "the variable EXACT is not set"


def test_a_star_alone_allows_nothing() -> None:
    assert not allows(["*"], "PATH")


def test_no_reference_is_no_secret() -> None:
    assert World(None).secrets.resolve("") == ""


@pytest.mark.parametrize("text", ["", "a", "abc", "\n", "abc\n"])
def test_a_secret_too_short_to_be_kept_out_of_logs_is_refused(folder: Path, text: str) -> None:
    (folder / "short").write_text(text)

    assert "fewer than 4 characters" in str(refusal(World(folder, EXACT=text.strip()), "${env:EXACT}"))
    assert "fewer than 4 characters" in str(refusal(World(folder), "${file:short}"))


def test_a_file_is_given_without_the_end_of_its_last_line(folder: Path) -> None:
    (folder / "windows").write_bytes(b" pass word \n\r\n")

    assert World(folder).secrets.resolve("${file:axis/password}") == CANARY
    assert World(folder).secrets.resolve("${file:windows}") == " pass word \n"


def test_a_secret_is_read_anew_each_time(folder: Path) -> None:
    world = World(folder)
    world.secrets.resolve("${file:axis/password}")
    (folder / "axis" / "password").write_text("rotated-value")

    assert world.secrets.resolve("${file:axis/password}") == "rotated-value"
    assert world.told == [CANARY, "rotated-value"]


def test_links_within_the_folder_are_followed_as_kubernetes_mounts_them(folder: Path) -> None:
    (folder / "..data").symlink_to("axis")
    (folder / "password").symlink_to("..data/password")

    assert World(folder).secrets.resolve("${file:password}") == CANARY


def test_a_folder_may_be_a_link_itself(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)

    assert World(tmp_path / "link").secrets.resolve("${file:axis/password}") == CANARY


@pytest.mark.parametrize("name", ["../outside", "axis/../../outside", "..", ".", "axis/..", "axis/../axis/password"])
def test_a_name_that_climbs_is_refused_whether_something_is_there_or_not(folder: Path, name: str) -> None:
    there, not_there = refusal(World(folder), f"${{file:{name}}}"), refusal(World(folder), f"${{file:{name}x/../y}}")

    assert "is not a file below" in str(there)
    assert str(there).replace(name, "") == str(not_there).replace(f"{name}x/../y", "")


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "escape").symlink_to(tmp_path / "outside")
    (folder / "up").symlink_to(tmp_path)

    assert "is not a file below" in str(refusal(World(folder), "${file:escape}"))
    assert "is not a file below" in str(refusal(World(folder), "${file:up/outside}"))


def test_what_is_no_small_text_file_is_refused_and_never_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    (folder / "binary").write_bytes(b"\xff\xfe\x00\x01")
    (folder / "nul").write_bytes(b"a\x00bcd")
    (folder / "loop").symlink_to("loop")

    assert "is not a file below" in str(refusal(World(folder), "${file:fifo}"))
    assert "is not a file below" in str(refusal(World(folder), "${file:axis}"))
    assert f"more than {MAX_BYTES} bytes" in str(refusal(World(folder), "${file:large}"))
    assert "no text in UTF-8" in str(refusal(World(folder), "${file:binary}"))
    assert "holds NUL" in str(refusal(World(folder), "${file:nul}"))
    assert "cannot be read" in str(refusal(World(folder), "${file:loop}"))
    assert "No such file" in str(refusal(World(folder), "${file:missing}"))


def test_files_are_refused_where_no_folder_is_named() -> None:
    assert "secrets.folder" in refusal(World(None), "${file:axis/password}").hint


@pytest.mark.parametrize(
    "text", [CANARY, f"${{env:EXACT}}{CANARY}", "${vault:x}", "${env:}", "${file:/etc/passwd}", "$(id)"]
)
def test_what_is_no_reference_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(SourceMisconfigured) as caught:
        World(None, EXACT=CANARY).secrets.resolve(text)

    assert text not in str(caught.value)
