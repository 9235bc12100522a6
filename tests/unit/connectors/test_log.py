"""What is told of listings."""

from __future__ import annotations

import logging

import pytest

from connectors.log import Listings

LOGGER = logging.getLogger("connectors.test")


def test_a_listing_is_information_only_where_something_changed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    listings = Listings(LOGGER, "/in")

    for found in (0, 0, 2, 2, None, None, 2):
        listings.failed() if found is None else listings.found(found)

    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    opening = "Opening directory '/in'..."
    assert told == [opening, "Found 0 files", opening, "Found 2 files", opening, opening, "Found 2 files"]
    assert len(caplog.records) == 12
