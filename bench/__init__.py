"""Benchmarks: one run, one topic, one machine, contenders in turn. `python -m bench --help`, docs/benchmarks.md."""

from __future__ import annotations
