from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigError
from tillstream.control.connector import ConnectorStatus
from tillstream.control.document import Document, documents, dumped
from tillstream.control.schedule import Schedule

AXIS = """
# the bank's nightly file
name: axis
kind: sftp
provider: AXIS
status: PAUSED
configuration:
  host: sftp.bank.example
  port: 2222
  columns: {amount: Amt, reference: "RRN"}
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        documents(text, place="connector.yaml")
    return str(caught.value)


def test_a_connector_is_read_from_yaml() -> None:
    configuration = {"host": "sftp.bank.example", "port": 2222, "columns": {"amount": "Amt", "reference": "RRN"}}

    assert documents(AXIS, place="connector.yaml") == [
        Document("connector.yaml", "axis", "sftp", configuration, "AXIS", ConnectorStatus.PAUSED)
    ]


def test_several_connectors_stand_in_one_file() -> None:
    text = "name: a\nkind: directory\nconfiguration: {}\n---\nname: b\nkind: directory\nconfiguration: {}\n---\n"

    assert [(each.name, each.place, each.provider, each.status) for each in documents(text, place="x")] == [
        ("a", "x, document 1", None, None),
        ("b", "x, document 2", None, None),
    ]


def test_everything_that_is_wrong_is_told_at_once_with_its_place() -> None:
    told = refused("nmae: a\nkind: [sftp]\nstatus: RUNNING\nconfiguration: none\n---\n- 1\n")

    first, second = "connector.yaml, document 1", "connector.yaml, document 2"
    keys = "name, kind, provider, status, schedule, configuration"
    assert [line.strip() for line in told.splitlines()[1:]] == [
        f"{first}: nmae: is no key of a connector; there are {keys}; did you mean name?",
        f"{first}: name: is missing",
        f"{first}: kind: must be text; got list",
        f"{first}: status: must be one of ACTIVE, PAUSED, FAILED; got str",
        f"{first}: configuration: must be a mapping; got str",
        f"{second}: must be a mapping with the keys {keys}; got list",
    ]


def test_a_name_that_is_there_twice_is_refused() -> None:
    one = "name: a\nkind: directory\nconfiguration: {}\n"

    assert "name: 'a' is there twice" in refused(f"{one}---\n{one}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "describes no connector"),
        ("name: [", "line 1"),
        ("name: a\nname: b", "line 2, character 1: a key is there twice"),
        ("configuration:\n  columns: {a: 1, a: 2}", "line 2, character 19: a key is there twice"),
        ("a: &x 1\nb: *x", "anchors and aliases are not used here"),
        ("name: %a", "line 1, character 7: found character '%' that cannot start any token"),
        ("name: " + "1" * 5_000, "a number that is too long"),
        ("[" * 5_000, "nested too deeply"),
        ("1: a", "a key is no text: put it between quotes"),
        ("a: !!python/object:os.system 1", "could not determine a constructor"),
        ("x" * 1_100_000, "more than 1048576 characters"),
    ],
)
def test_yaml_that_would_surprise_is_refused(text: str, told: str) -> None:
    assert told in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "configuration: !canary",
        "configuration: !<canary> x",
        "configuration: !e!canary x",
        "configuration: *canary",
        "configuration: &canary x\nb: *canary",
        "configuration: {a: &canary 1, b: &canary 2}",
        "configuration: 'canary",
        'configuration: "\\canary"',
        "configuration: %canary",
        "configuration: @canary",
        "configuration: |canary",
        "configuration: {canary: 1, canary: 2}",
        "configuration: {[canary]: 1}",
        "configuration: canary: canary",
        "%canary\n---\nconfiguration: 1",
        "%YAML canary\n---\nconfiguration: 1",
        "status: canary",
        "status: [canary]",
        "configuration: canary",
        "configuration: [canary",
    ],
)
def test_no_error_quotes_what_may_be_a_secret(text: str) -> None:
    for body in (text, f"name: a\nkind: sftp\n{text}" if not text.startswith("%") else text):
        assert "canary" not in refused(body)


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        ("2025-01-10", "2025-01-10"),
        ("22:30", "22:30"),
        ("no", "no"),
        ("0x10", "0x10"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("+5", 5),
        ("-1.5", -1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("~", None),
        ("", None),
        ("'5'", "5"),
    ],
)
def test_a_scalar_means_what_it_looks_like(spelled: str, meant: object) -> None:
    [found] = documents(f"name: a\nkind: b\nconfiguration: {{key: {spelled}}}", place="x")

    assert found.configuration == {"key": meant}
    assert type(found.configuration["key"]) is type(meant)


def test_every_sample_is_one() -> None:
    samples = sorted(Path("samples").rglob("connector.yaml"))

    assert samples
    for each in samples:
        assert len(documents(each.read_text("utf-8"), place=str(each))) == 1


CHARS = st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("0123456789.:-_ eExX+~#\n\t'\"")
TRAPS = (
    "1e5", "1", "1_0", "0x1F", "0o7", ".5", "1.", "-", "~", "null", "yes", "On", "True", "22:30", "2025-01-10", "=",
    "<<", "a: b", "- a", "a #b", "---", "...", "\u2028", "\x85", "\ufeff", "\u202e", "",
)  # fmt: skip
TEXTS = st.text(CHARS, max_size=12) | st.sampled_from(TRAPS)
VALUES = st.recursive(
    st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, VALUES, max_size=4)), min_size=1, max_size=3))
def test_what_is_written_is_read_as_it_was(described: list[tuple[str, dict[str, object]]]) -> None:
    wanted = [
        {
            "name": f"{number} {name}",
            "kind": "x",
            "status": "PAUSED",
            "schedule": {"cron": "0 3 * * *"},
            "configuration": each,
        }
        for number, (name, each) in enumerate(described)
    ]

    found = documents(dumped(wanted), place="x")

    assert [each.name for each in found] == [each["name"] for each in wanted]
    assert json.dumps([each.configuration for each in found]) == json.dumps([each for _, each in described])
    assert {each.schedule for each in found} == {Schedule("0 3 * * *", enabled=True)}


def test_a_list_is_as_good_as_documents_and_a_schedule_has_a_form() -> None:
    one = {"name": "a", "kind": "x", "configuration": {}}

    assert [each.name for each in documents(json.dumps([one, one | {"name": "b"}]), place="x")] == ["a", "b"]
    assert "schedule.corn: is no key" in refused("name: a\nkind: x\nschedule: {corn: 1}\nconfiguration: {}\n")
    assert "schedule.cron: must be str; got int" in refused(
        "name: a\nkind: x\nschedule: {cron: 1}\nconfiguration: {}\n"
    )
