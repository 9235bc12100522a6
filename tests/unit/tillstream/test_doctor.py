from __future__ import annotations

from pathlib import Path

import pytest

from tests.services import open_directory
from tillstream import doctor
from tillstream.cli.exit import ExitStatus
from tillstream.cli.stack import told_by
from tillstream.doctor import GIB, Finding
from tillstream.embedded.home import Home
from tillstream.embedded.jar import locked_jars


def test_a_rival_owner_of_a_package_name_is_named_with_the_way_out():
    """pip installs it in silence, and uninstalling either takes files of the other away."""
    [finding] = doctor.foreign_packages(
        {"connectors": ["tillstream", "elasticsearch-connectors"], "sinks": ["tillstream"]}
    )

    assert not finding.ok
    assert "connectors belongs to elasticsearch-connectors" in finding.what
    assert "pip uninstall elasticsearch-connectors" in finding.fix


def test_this_environment_has_no_rival():
    assert [finding.ok for finding in doctor.foreign_packages()] == [True]


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 14), False), ((3, 11, 0), True), ((3, 13, 1), True)])
def test_the_python_must_be_new_enough(version: tuple[int, int, int], ok: bool):
    assert doctor.python_version(version).ok is ok


def test_a_full_disk_is_told_with_the_figure_and_the_place():
    with open_directory() as folder:
        finding = doctor.disk(Home(folder / "not" / "yet"), needed_bytes=2**80)

    assert not finding.ok
    assert "GiB free for" in finding.what
    assert "TILL_HOME" in finding.fix


def test_too_little_memory_is_told():
    available = doctor.available_memory_bytes()
    assert available is None or available > 0.1 * GIB

    assert not doctor.memory(needed_bytes=2**80).ok or available is None
    assert doctor.memory(needed_bytes=1).ok


def test_a_containers_limit_counts_as_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "LINUX_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(doctor, "CONTAINER_LIMIT", tmp_path / "limit")
    monkeypatch.setattr(doctor, "CONTAINER_USE", tmp_path / "use")
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    (tmp_path / "limit").write_text("5000000\n")
    (tmp_path / "use").write_text("1000000\n")
    limited = doctor.available_memory_bytes()
    (tmp_path / "limit").write_text("max\n")

    assert limited == 4_000_000
    assert doctor.available_memory_bytes() == 8_000 * 1024


def test_root_is_told_which_folder_postgresql_cannot_pass(tmp_path: Path):
    closed = tmp_path / "root"
    closed.mkdir(mode=0o700)

    finding = doctor.home_directory(Home(closed / "data" / "till"), embedded_postgres=True, uid=0)
    with_a_server_of_ones_own = doctor.home_directory(Home(closed / "data" / "till"), embedded_postgres=False, uid=0)

    assert not finding.ok
    assert "chmod o+x" in finding.fix
    assert with_a_server_of_ones_own.ok


def test_an_empty_cache_is_well_and_tells_what_will_be_fetched(tmp_path: Path):
    finding = doctor.jars(tmp_path)

    assert finding.ok
    assert "45 MB are fetched" in finding.what


def test_a_cached_jar_that_differs_from_the_lock_is_found(tmp_path: Path):
    jar = locked_jars()[0]
    (tmp_path / jar.file_name).write_bytes(b"something else")

    finding = doctor.jars(tmp_path)

    assert not finding.ok
    assert jar.coordinates in finding.what


def test_java_is_found_or_said_to_be_missing(tmp_path: Path):
    assert doctor.java({}).ok
    assert not doctor.java({"TILL_JAVA": str(tmp_path)}).ok


def test_programs_that_do_not_run_are_told(tmp_path: Path):
    assert doctor.postgres_programs({}).ok

    finding = doctor.postgres_programs({"TILL_POSTGRES_BIN": str(tmp_path)})

    assert not finding.ok
    assert "TILL_POSTGRES_DSN" in finding.fix


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_setting_that_loses_commits_is_told_with_what_it_costs(setting: str):
    bad = doctor.durability(setting, "off")

    assert not bad.ok
    assert "crash" in bad.what
    assert f"SET {setting} = on" in bad.fix
    assert doctor.durability(setting, "on").ok


@pytest.mark.parametrize(
    ("ok", "warning", "strict", "expected"),
    [
        (True, False, True, ExitStatus.OK),
        (True, True, False, ExitStatus.OK),
        (True, True, True, ExitStatus.PARTIAL),
        (False, True, True, ExitStatus.FAILED),
        (False, False, False, ExitStatus.FAILED),
    ],
)
def test_a_script_is_told_of_what_is_wrong_and_of_warnings_if_it_asks(
    ok: bool, warning: bool, strict: bool, expected: ExitStatus
):
    findings = [Finding("python", ok=True, what=""), Finding("x", ok=ok, what="", warning=warning)]

    assert told_by(findings, strict=strict) is expected
