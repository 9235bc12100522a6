from __future__ import annotations

import os
from pathlib import Path

import pytest

from schemas.errors import ConfigError
from tests.services import open_directory
from tillstream.embedded.home import SYSTEM_CACHE, SYSTEM_HOME, Home, closed_ancestor, default_cache, default_home

STRANGER = 54_321


def test_what_the_variables_name_wins():
    environment = {"TILL_HOME": "/srv/till", "TILL_CACHE": "/srv/cache", "XDG_DATA_HOME": "/x", "HOME": "/h"}

    assert default_home(environment, uid=1000) == Path("/srv/till")
    assert default_cache(environment, uid=1000) == Path("/srv/cache")


def test_a_user_gets_the_places_of_the_xdg_specification():
    assert default_home({"HOME": "/home/ada"}, uid=1000) == Path("/home/ada/.local/share/tillstream")
    assert default_cache({"HOME": "/home/ada"}, uid=1000) == Path("/home/ada/.cache/tillstream")
    assert default_home({"HOME": "/h", "XDG_DATA_HOME": "/data"}, uid=1000) == Path("/data/tillstream")


def test_root_with_a_closed_home_directory_gets_the_systems_places(tmp_path: Path):
    """PostgreSQL runs under another user then, and that one cannot pass through a home directory of mode 0700."""
    home = tmp_path / "root"
    home.mkdir(mode=0o700)

    assert default_home({"HOME": str(home)}, uid=0) == SYSTEM_HOME
    assert default_cache({"HOME": str(home)}, uid=0) == SYSTEM_CACHE


def test_root_with_an_open_home_directory_keeps_it():
    with open_directory() as home:
        assert default_home({"HOME": str(home)}, uid=0) == home / ".local" / "share" / "tillstream"


def test_the_closed_directory_on_the_way_is_named():
    with open_directory() as top:
        closed = top / "closed"
        (closed / "inside").mkdir(parents=True)
        closed.chmod(0o700)

        assert closed_ancestor(closed / "inside", uid=STRANGER, gid=STRANGER) == closed
        assert closed_ancestor(closed / "inside", uid=os.getuid() or 0, gid=os.getgid()) is None
        assert closed_ancestor(top / "not-yet" / "there", uid=STRANGER, gid=STRANGER) is None


def test_a_group_that_may_pass_is_let_through():
    with open_directory() as top:
        folder = top / "team"
        folder.mkdir()
        folder.chmod(0o710)

        assert closed_ancestor(folder, uid=STRANGER, gid=folder.stat().st_gid) is None
        assert closed_ancestor(folder, uid=STRANGER, gid=STRANGER) == folder


def test_a_home_that_cannot_be_made_is_a_configuration_error_with_a_way_out(tmp_path: Path):
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(ConfigError, match="cannot be written") as caught:
        Home(file / "home").create()

    assert "TILL_HOME" in caught.value.hint
