from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pytest
import typer
import yaml

from tillstream.cli import delimited
from tillstream.cli.layout import LAYOUT
from tillstream.cli.output import Output, print_data, print_fields, print_table
from tillstream.cli.rows import Columns, Listing, print_one

PAYMENTS = Columns({"payment": "id", "amount": lambda row: f"{row['amount'] / 100:.2f}"}, ("id", "amount", "flags"))
FIRST = [{"id": "a", "amount": -1250, "flags": ["odd"]}, {"id": "=1+1", "amount": 5, "flags": []}]
SECOND = [{"id": "b", "amount": 7, "flags": []}]


@pytest.fixture(autouse=True)
def _usual_layout() -> Iterator[None]:
    yield
    LAYOUT.columns, LAYOUT.headers = (), True


def listed(output: Output, capsys: pytest.CaptureFixture[str], *, next_: str | None = None) -> str:
    listing = Listing(output, PAYMENTS)
    listing.add(FIRST)
    listing.add(SECOND)
    listing.end(next_)
    return capsys.readouterr().out


def test_json_and_yaml_of_a_list_are_one_page_of_the_api(capsys: pytest.CaptureFixture[str]) -> None:
    page = {"data": FIRST + SECOND, "next": "x"}

    assert json.loads(listed(Output.JSON, capsys, next_="x")) == page
    assert yaml.safe_load(listed(Output.YAML, capsys, next_="x")) == page


def test_json_lines_are_there_before_the_list_ends(capsys: pytest.CaptureFixture[str]) -> None:
    listing = Listing(Output.JSONL, PAYMENTS)

    listing.add(FIRST)
    first = capsys.readouterr().out
    listing.add(SECOND)
    listing.end("x")
    rest = capsys.readouterr()

    assert [json.loads(line) for line in first.splitlines()] == FIRST
    assert [json.loads(line) for line in rest.out.splitlines()] == SECOND
    assert rest.err == "more: --after x\n"


def test_csv_has_one_header_its_models_columns_and_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    told = listed(Output.CSV, capsys)

    assert told == 'id,amount,flags\r\na,-1250,"[""odd""]"\r\n\'=1+1,5,[]\r\nb,7,[]\r\n'


def test_csv_of_no_rows_is_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    Listing(Output.CSV, PAYMENTS).end()

    assert capsys.readouterr().out == "id,amount,flags\r\n"


def test_columns_are_chosen_by_heading_or_field_and_headers_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    LAYOUT.columns, LAYOUT.headers = ("Amount", "flags"), False

    assert [line.split() for line in listed(Output.TABLE, capsys).splitlines()] == [
        ["-12.50", '["odd"]'],
        ["0.05", "[]"],
        ["0.07", "[]"],
    ]
    assert listed(Output.CSV, capsys) == '-1250,"[""odd""]"\r\n5,[]\r\n7,[]\r\n'


def test_one_object_is_a_row_of_csv_and_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [("payment", "a"), ("amount", "-12.50")]

    print_one(Output.CSV, FIRST[0], PAYMENTS.fields, shown)
    print_one(Output.JSONL, FIRST[0], PAYMENTS.fields, shown)
    print_one(Output.TABLE, FIRST[0], PAYMENTS.fields, shown)
    LAYOUT.columns, LAYOUT.headers = ("flags",), False
    print_one(Output.TABLE, FIRST[0], PAYMENTS.fields, shown)

    header, row, line, *fields = capsys.readouterr().out.splitlines()
    assert (header, row) == ("id,amount,flags", 'a,-1250,"[""odd""]"')
    assert json.loads(line) == FIRST[0]
    assert fields == ["payment  a", "amount   -12.50", '["odd"]']


def test_a_column_that_is_not_there_is_refused_with_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    LAYOUT.columns = ("colour",)

    for output in (Output.TABLE, Output.CSV):
        with pytest.raises(typer.BadParameter, match=r"colour: no such column; there are .*amount"):
            listed(output, capsys)
    with pytest.raises(typer.BadParameter, match="there are name"):
        print_fields([("name", 1)])
    with pytest.raises(typer.BadParameter, match="there are last_run"):
        print_table(["last run"], [[1]])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\ta", "\ra", "\na", "  =1", "\uff1d1", "'=1", "'"])
def test_text_that_a_spreadsheet_would_compute_is_made_harmless_and_can_be_had_again(text: str) -> None:
    told = delimited.lines([[text]])

    (read,) = next(csv.reader(io.StringIO(told, newline="")))
    assert read == f"'{text}"


def test_other_text_and_numbers_are_as_they_are() -> None:
    row = ["a=b", "", None, -5, -0.5, True, {"a": "é"}, 'say "x", y\r\nz']

    told = delimited.lines([row])

    assert next(csv.reader(io.StringIO(told, newline=""))) == [
        "a=b", "", "", "-5", "-0.5", "true", '{"a": "é"}', 'say "x", y\r\nz',
    ]  # fmt: skip
    assert told.endswith("\r\n")


def test_csv_on_a_terminal_obeys_no_control_characters() -> None:
    assert delimited.lines([["a\x1b[2J\u202e"]], to_terminal=True) == "a\\x1b[2J\\u202e\r\n"
    assert delimited.lines([["a\x1b[2J"]]) == "a\x1b[2J\r\n"


def test_what_is_no_list_of_objects_has_lines_and_rows_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_data(Output.JSONL, {"data": [{"a": 1}], "next": None})
    print_data(Output.CSV, ["x"])
    print_data(Output.CSV, {"well": False, "findings": [1]}, rows=[{"name": "disk"}])
    print_data(Output.CSV, [], fields=("a", "b"))

    assert capsys.readouterr().out == '{"a": 1}\nvalue\r\nx\r\nname\r\ndisk\r\na,b\r\n'
