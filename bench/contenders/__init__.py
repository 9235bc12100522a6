"""One process each: what is measured. None of them measures itself."""

from __future__ import annotations
