from __future__ import annotations

import re

import pytest
import yaml
from pydantic import Field

from connectors.mapping import Column, LeaveOut, RecordConfig
from connectors.network import Network, NetworkConfig
from connectors.registry import BUILTIN
from connectors.secret import SecretReference
from connectors.source import Source
from connectors.spec import SourceSpec
from schemas.errors import RecordRejected, SourceThrottled
from tillstream.docs_source import index, page


class ShownConfig(RecordConfig, NetworkConfig):
    """What the page under test shows."""

    token: SecretReference = Field("", description="Opens the door.")
    idle_s: float = Field(1.5, gt=0, le=86_400, description="How long.")
    most: int = Field(ge=1, le=1_000_000, description="How many.")
    strict: bool = Field(False, description="How.")
    left: tuple[LeaveOut, ...] = Field((), description="Which.")
    maybe: int | None = Field(None, ge=2, description="Perhaps.")
    by_name: dict[str, Column] = Field(default_factory=dict, description="Where.")
    ranges: tuple[Network, ...] = Field((), min_length=1, description="Whence.")


def make(config: ShownConfig, context: object) -> Source:
    if config.strict:
        raise SourceThrottled("it", retry_after_s=1)
    raise RecordRejected("odd_moon", "the moon is odd")


SPEC = SourceSpec(
    kind="shown",
    summary="Shows itself.",
    config=ShownConfig,
    factory=make,
    resumes_from="wherever it stood",
    example={"most": 5, "columns": {"reference": "$.id"}},
    notes="Mind the moon.",
)
PAGE = page(SPEC, note="")


def row(key: str) -> list[str]:
    """The cells of an option's row."""
    (line,) = re.findall(rf"^\| `{key}` \|(.*)\|$", PAGE, re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


@pytest.mark.parametrize(
    ("key", "cells"),
    [
        ("token", ["a secret's name: `${env:NAME}` or `${file:NAME}`", "", "", "Opens the door."]),
        ("idle_s", ["a number > 0 ≤ 86\u202f400", "seconds", "`1.5`", "How long."]),
        ("most", ["a whole number ≥ 1 ≤ 1\u202f000\u202f000", "", "required", "How many."]),
        ("strict", ["true or false", "", "`false`", "How."]),
        ("left", ["a list: LeaveOut (below)", "", "", "Which."]),
        ("maybe", ["a whole number ≥ 2, or nothing", "", "", "Perhaps."]),
        ("by_name", ["names, each with a column or a path", "", "", "Where."]),
        ("ranges", ["a list: an address range (not empty)", "", "", "Whence."]),
    ],
)
def test_an_option_is_told_with_its_values_unit_and_default(key: str, cells: list[str]) -> None:
    assert row(key) == cells


def test_shared_options_stand_under_headings_of_their_own_and_each_option_once() -> None:
    own, records, network, shared = (
        PAGE.index(f"\n## {title}\n")
        for title in ("Its own options", "How records are read", "The network", "Options of every connector")
    )

    assert own < PAGE.index("| `token` |") < records < PAGE.index("| `columns` |") < network
    assert network < PAGE.index("| `allow_networks` |") < shared < PAGE.index("| `parallel` |")
    assert all(PAGE.count(f"\n| `{name}` |") == 1 for name in ShownConfig.model_fields)


def test_a_page_tells_what_fails_why_records_are_rejected_and_what_is_measured() -> None:
    assert "| `source_throttled` | it is tried again |" in PAGE
    assert "| `source_unauthorised` |" not in PAGE
    assert "`odd_moon`" in PAGE
    assert "`tillstream_records_total`" in PAGE
    assert "Mind the moon." in PAGE
    assert "wherever it stood" in PAGE


def test_the_index_leads_to_every_page() -> None:
    shown = index({"shown": SPEC}, note="")

    assert "[`shown`](sources/shown.md)" in shown


@pytest.mark.parametrize("spec", [spec for spec in BUILTIN.values() if spec.example], ids=lambda spec: spec.kind)
def test_the_example_of_a_kind_is_a_configuration_as_it_stands_on_its_page(spec: SourceSpec) -> None:
    (shown,) = re.findall(r"```yaml\n(.*?)```", page(spec, note=""), re.DOTALL)
    described = yaml.safe_load(shown)

    assert described["kind"] == spec.kind
    assert spec.config.model_validate(described["configuration"])
