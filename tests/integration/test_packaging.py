"""What is installed where: the wheel's contents, and the locks that `make setup` installs from."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "connectors", "streams", "sinks", "tillstream")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    subprocess.run([*command, str(folder), str(ROOT)], check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_the_wheel_holds_the_five_packages_and_nothing_else(wheel: zipfile.ZipFile):
    """Tests, benchmarks and samples are importable in a checkout; none of them may become a top-level package."""
    tops = {name.split("/")[0] for name in wheel.namelist()}

    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


def test_every_tracked_file_of_the_packages_is_in_the_wheel(wheel: zipfile.ZipFile):
    """SQL, locks, py.typed: a file that is not Python is easily left behind."""
    names = set(wheel.namelist())
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert {f"{package}/py.typed" for package in PACKAGES} | {"tillstream/embedded/jars.lock"} <= names
    assert expected <= names


def test_the_command_is_installed(wheel: zipfile.ZipFile):
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]

    assert "till = tillstream.cli:main" in wheel.read(entry_points).decode()


def locked(name: str) -> dict[str, str]:
    """The versions of a lock, by package."""
    text = (ROOT / "requirements" / name).read_text()
    return dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^\s;\\]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_a_lock_pins_every_file_by_hash_and_names_no_address(name: str):
    text = (ROOT / "requirements" / name).read_text()
    entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]

    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"://|--index|--extra-index|--find-links|\s@\s", text)


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("runtime.txt", PROJECT["dependencies"]),
        ("dev.txt", [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]),
    ],
)
def test_a_lock_satisfies_what_the_project_asks_for(name: str, requirements: list[str]):
    """A dependency that was added without `make lock` is missed on every fresh machine and on none of ours."""
    versions = locked(name)
    wanted = [Requirement(line) for line in requirements]

    assert [each for each in wanted if not each.specifier.contains(versions.get(each.name, "0"))] == []


def test_both_locks_agree():
    runtime, dev = locked("runtime.txt"), locked("dev.txt")

    assert {name: dev.get(name) for name in runtime} == runtime
