from __future__ import annotations

import gc
import threading
import warnings
from pathlib import Path

import pytest

from connectors.files.listing import Entry, _Listing


def test_a_listing_that_is_closed_while_a_thread_is_in_it_is_closed_by_that_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The C library crashes the process when a folder is closed under `readdir`.
    """
    inside, go_on = threading.Event(), threading.Event()
    listing = _Listing(str(tmp_path))
    closed: list[str] = []

    class Entries:
        def close(self) -> None:
            closed.append(threading.current_thread().name)

    def read() -> list[Entry]:
        inside.set()
        assert go_on.wait(10)
        return []

    listing._entries.close()
    monkeypatch.setattr(listing, "_entries", Entries())
    monkeypatch.setattr(listing, "_read", read)
    thread = threading.Thread(target=listing.page, name="reader")
    thread.start()
    assert inside.wait(10)

    listing.close()

    assert closed == []
    go_on.set()
    thread.join(10)
    assert closed == ["reader"]


def test_a_listing_nobody_is_in_is_closed_at_once_and_has_no_further_page(tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    listing = _Listing(str(tmp_path))

    listing.close()

    assert listing.page() == []


def test_closing_many_listings_under_their_readers_crashes_nothing(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.csv").touch()

    for _ in range(200):
        listing = _Listing(str(tmp_path))
        thread = threading.Thread(target=listing.page)
        thread.start()
        listing.close()
        thread.join(10)


def test_a_listing_that_nobody_waits_for_any_more_leaves_no_folder_open(tmp_path: Path) -> None:
    """
    A stop may come while a thread opens the folder; then the listing is dropped unread.
    """
    (tmp_path / "a.csv").touch()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")

        _Listing(str(tmp_path))
        gc.collect()

    assert told == []
    with pytest.raises(FileNotFoundError):
        _Listing(str(tmp_path / "absent"))
