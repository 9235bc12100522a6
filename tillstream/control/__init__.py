"""
What operators do, as services: connectors, runs, claims, dead letters, payments, the ledger, replay, the monitor.

The CLI calls them now and a REST API later, so nothing here prints, asks or exits. Each takes its connections as
arguments and raises the errors of `schemas.errors`.
"""

from __future__ import annotations
