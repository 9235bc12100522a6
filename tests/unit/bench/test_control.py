"""The benchmark of the API: no endpoint goes unmeasured, and its section of the page outlives other runs."""

from __future__ import annotations

import pytest

from bench import control_report
from bench.control import Found, Listening, Times, Variant
from bench.fill import Size
from bench.reads import Read, Reads, unmeasured

QUICK = Times(1.0, 2.0, 3.0, 4.0, 300)
SLOW = Times(50.0, 90.0, 120.0, 130.0, 300)


def found(*variants: Variant) -> Found:
    mixed = {each.endpoint: each.times for each in variants}
    return Found(Size(), 200, 5.3, 90.0, variants, mixed, QUICK, Listening(QUICK, QUICK), 0.1, 900.0, 150)


def variant(endpoint: str, name: str, times: Times, *, others: float = 0.0) -> Variant:
    return Variant(endpoint, name, 200, 1_000, times, 2.0, 1.0, others)


def test_an_endpoint_that_nobody_asks_is_named() -> None:
    document = {"/runs": frozenset[str](), "/runs/{run}": frozenset[str]()}

    assert unmeasured([Read("/runs", "all", ["/runs"])], document) == ["/runs/{run}"]


def test_a_parameter_that_nobody_uses_is_named() -> None:
    asked = Reads()
    asked.add("/runs", "by status", status="FAILED")
    asked.add("/runs", "deep", after=[1])

    assert unmeasured(asked.made, {"/runs": frozenset({"status", "type", "after"})}) == ["/runs ?type"]


def test_an_endpoint_that_is_no_more_is_named() -> None:
    assert unmeasured([Read("/gone", "all", ["/gone"])], {}) == ["/gone"]


def test_the_p99_of_300_is_the_third_longest() -> None:
    times = Times.of([number / 1_000 for number in range(1, 301)])

    assert (times.p50_ms, times.p99_ms, times.most_ms, times.requests) == (151.0, 298.0, 300.0, 300)


def test_the_slowest_variant_of_an_endpoint_is_shown_and_a_miss_is_told() -> None:
    text = control_report.section(found(variant("/runs", "all", QUICK), variant("/runs", "deep", SLOW)))

    assert "| `/runs` | 2 | deep | 50.0 | 90.0 | 120.0 | 130.0 | 2.0 | 1.0 |" in text
    assert "**Not met** by 1 of 2 variants: `/runs` (deep) 120 ms." in text
    assert "| all |" not in text


@pytest.mark.parametrize(("others", "told"), [(0.01, False), (0.5, True)])
def test_a_busy_machine_is_told(others: float, told: bool) -> None:
    text = control_report.section(found(variant("/runs", "all", QUICK, others=others)))

    assert ("busy with other work" in text) is told
    assert "**Met** by each of 1 variants." in text


def test_the_section_takes_its_own_place_and_leaves_the_rest_alone() -> None:
    section = control_report.section(found(variant("/runs", "all", QUICK)))
    page = "# Benchmarks\n\nThe rest.\n"

    once = control_report.spliced(page, section)
    twice = control_report.spliced(once, section.replace("/runs", "/other"))

    assert once == f"{page}\n{section}"
    assert twice == f"{page}\n{section}".replace("/runs", "/other")
    assert page + control_report.kept(once) == once
    assert not control_report.kept(page)
