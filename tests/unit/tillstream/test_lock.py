from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import StackBusy
from tillstream.embedded.lock import OwnerLock


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path):
    first, second = OwnerLock(tmp_path / "lock"), OwnerLock(tmp_path / "lock")
    first.acquire(what="the stack")

    with pytest.raises(StackBusy, match=f"the stack is already run by process {os.getpid()}"):
        second.acquire(what="the stack")

    assert first.owner() == os.getpid()


def test_a_released_lock_can_be_taken_by_another(tmp_path: Path):
    first, second = OwnerLock(tmp_path / "lock"), OwnerLock(tmp_path / "lock")
    first.acquire(what="the stack")
    first.release()

    second.acquire(what="the stack")

    assert second.held
    assert not first.held


def test_a_lock_nobody_holds_has_no_owner_whatever_stands_in_its_file(tmp_path: Path):
    (tmp_path / "lock").write_text("1\n")

    assert OwnerLock(tmp_path / "lock").owner() is None
    assert OwnerLock(tmp_path / "never").owner() is None
