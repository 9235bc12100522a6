"""Names by pattern and day, and which of a folder's names are files to read."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from connectors.remote.entry import Entry, join
from connectors.remote.folder import Chooser
from connectors.remote.pattern import NamePattern, Window

AXIS = "AXIS_RECON_YYYYMMDD*.csv"


@pytest.mark.parametrize(
    ("pattern", "name", "day"),
    [
        (AXIS, "AXIS_RECON_20250110.csv", date(2025, 1, 10)),
        (AXIS, "AXIS_RECON_20250110_part2.csv", date(2025, 1, 10)),
        ("HDFCYYYYMMDD.txt", "HDFC20240229.txt", date(2024, 2, 29)),
        ("x_DD-MM-YYYY.csv", "x_10-01-2025.csv", date(2025, 1, 10)),
        ("x_MM.DD.YYYY", "x_01.10.2025", date(2025, 1, 10)),
        ("ICICI_DDMMYY?.csv", "ICICI_310125A.csv", date(2025, 1, 31)),
        ("SUMMARY_YYYYMMDD.csv", "SUMMARY_20250110.csv", date(2025, 1, 10)),
        ("*_YYYY_MM_DD_*", "a_2025_01_10_b", date(2025, 1, 10)),
    ],
)
def test_a_name_tells_its_day(pattern: str, name: str, day: date) -> None:
    assert NamePattern(pattern).day(name) == day


@pytest.mark.parametrize(
    "name",
    [
        "AXIS_RECON_20250110.csv.sha256",
        "old_AXIS_RECON_20250110.csv",
        "AXIS_RECON_20250110.csv\n",
        "AXIS_RECON_2025011.csv",
        "AXIS_RECON_YYYYMMDD.csv",
        "axis_recon_20250110.csv",
        "AXIS_RECON_2025011\N{FULLWIDTH DIGIT ZERO}.csv",
        "AXIS_RECON_20250110xcsv",
    ],
)
def test_a_name_matches_whole_or_not_at_all(name: str) -> None:
    assert not NamePattern(AXIS).matches(name)


@pytest.mark.parametrize("name", ["AXIS_RECON_20250230.csv", "AXIS_RECON_20251310.csv", "AXIS_RECON_00000101.csv"])
def test_digits_that_are_no_day_of_the_calendar_are_no_date(name: str) -> None:
    pattern = NamePattern(AXIS)

    assert pattern.matches(name)
    assert pattern.day(name) is None


@pytest.mark.parametrize("pattern", ["", "a/b", "a\0b", "YYYYMMDD_to_YYYYMMDD", "x_YYYY*.csv", "*" * 9])
def test_a_pattern_that_cannot_be_meant_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"pattern|date"):
        NamePattern(pattern)


def test_what_a_pattern_does_not_know_means_itself() -> None:
    pattern = NamePattern("a[1]{2}(x)+$.csv")

    assert pattern.matches("a[1]{2}(x)+$.csv")
    assert not pattern.matches("a1{2}(x)+$.csv")


def test_no_name_makes_matching_slow() -> None:
    began = time.monotonic()

    NamePattern("*a*a*a*a*a*a*a*b").matches("a" * 255)

    assert time.monotonic() - began < 0.5


def test_today_is_the_connectors_own() -> None:
    at_two_in_mumbai = datetime(2025, 1, 10, 20, 30, tzinfo=UTC)

    window = Window.back(1, at_two_in_mumbai, ZoneInfo("Asia/Kolkata"))

    assert window == Window(date(2025, 1, 10), date(2025, 1, 11))
    assert date(2025, 1, 9) not in window
    assert date(2025, 1, 12) not in window


def chosen(pattern: str, *entries: Entry, window: Window | None = None, with_sidecars: bool = True) -> dict[str, str]:
    """What becomes of each entry that the pattern means: its sidecar's name, or the reason why it is not read."""
    chooser = Chooser(
        NamePattern(pattern),
        ZoneInfo("Asia/Kolkata"),
        sidecar_suffix=".sha256",
        with_sidecars=with_sidecars,
        is_readable=lambda name: not name.endswith(".pdf"),
    )
    found = chooser.choose(entries, window or Window())
    files = {file.shown: file.sidecar.shown if file.sidecar else "" for file in found.files}
    return {**files, **{each.descriptor: f"!{each.reason}" for each in found.skipped}}


def test_a_checksums_file_belongs_to_its_file_and_is_none_to_read() -> None:
    entries = [Entry(name) for name in (b"a.csv", b"a.csv.sha256", b"b.csv", b"c.csv.sha256")]

    assert chosen("*", *entries) == {"a.csv": "a.csv.sha256", "b.csv": ""}
    assert chosen("*", *entries, with_sidecars=False) == {"a.csv": "", "b.csv": ""}


def test_what_is_no_file_to_read_is_told_with_its_reason() -> None:
    entries = [
        Entry(b"a.csv", reason="symlink"),
        Entry(b"b.csv.part"),
        Entry(b".c.csv"),
        Entry(b"d.pdf"),
        Entry(b"e.csv"),
    ]

    assert chosen("*", *entries) == {
        "a.csv": "!symlink",
        "b.csv.part": "!temporary",
        ".c.csv": "!temporary",
        "d.pdf": "!unknown_format",
        "e.csv": "",
    }


def test_a_window_chooses_by_the_names_day_or_by_the_day_of_the_last_change() -> None:
    window = Window(date(2025, 1, 10), date(2025, 1, 10))
    late_on_the_ninth_in_utc = datetime(2025, 1, 9, 20, 0, tzinfo=UTC).timestamp()
    dated = [Entry(f"x_{day}.csv".encode(), mtime_s=0.0) for day in (20250109, 20250110, 20250111, 20250230)]
    plain = [Entry(b"in.csv", mtime_s=late_on_the_ninth_in_utc), Entry(b"out.csv", mtime_s=0.0)]

    assert chosen("x_YYYYMMDD.csv", *dated, window=window) == {
        "x_20250109.csv": "!other_day",
        "x_20250110.csv": "",
        "x_20250111.csv": "!other_day",
        "x_20250230.csv": "!no_date",
    }
    assert chosen("*.csv", *plain, window=window) == {"in.csv": "", "out.csv": "!other_day"}


def test_files_come_oldest_first() -> None:
    entries = [Entry(b"a.csv", mtime_s=2.0), Entry(b"c.csv", mtime_s=1.0), Entry(b"b.csv", mtime_s=1.0)]

    assert list(chosen("*", *entries)) == ["b.csv", "c.csv", "a.csv"]


@pytest.mark.parametrize(
    ("folder", "name", "path"),
    [
        (b"/", b"a", b"/a"),
        (b"/in/", b"a", b"/in/a"),
        (b".", b"a", b"./a"),
        (b"/in", b"/done", b"/done"),
        (b"in", b"a", b"in/a"),
    ],
)
def test_paths_are_joined(folder: bytes, name: bytes, path: bytes) -> None:
    assert join(folder, name) == path
