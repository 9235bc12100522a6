from __future__ import annotations

import csv as standard
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.files import delimited, rows
from connectors.files.delimited import DELIMITERS
from connectors.files.text import Encoding
from connectors.record import RawPolicy, RecordRules
from schemas.errors import RecordRejected
from tests.unit.connectors.parsing import HEADER, csv, parsed, records, references, rejections

GOOD = b"%s,payin,succeeded,EUR,100,%s\n"


def good(reference: bytes, note: bytes = b"") -> bytes:
    return GOOD % (reference, note)


def test_a_row_is_a_record_with_its_number_and_line() -> None:
    (first, second) = records(parsed(csv(), HEADER + good(b"a") + good(b"b")))

    assert (first.position, first.line, first.payment.reference) == ("row 1", 2, "a")
    assert (second.position, second.line, second.payment.reference) == ("row 2", 3, "b")


@pytest.mark.parametrize(
    "data", [b"", b"\n\n  \n", HEADER, HEADER + b"\n\r\n \n", HEADER[:-1], b"\xef\xbb\xbf", b"\r\n"]
)
def test_a_file_without_records_has_none(data: bytes) -> None:
    assert parsed(csv(), data) == []


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_newlines_are_either_kind_and_the_last_may_be_missing(newline: bytes, last: bool) -> None:
    data = (HEADER + good(b"a") + good(b"b", b"x")).replace(b"\n", newline)

    found = parsed(csv(), data if last else data.removesuffix(newline))

    assert references(found) == ["a", "b"]


def test_a_newline_inside_quotes_belongs_to_the_field_and_lines_are_still_counted() -> None:
    policy = RecordRules(raw=RawPolicy.RECORD)
    data = HEADER + good(b"a", b'"one\ntwo\r\nthree"') + good(b"b")

    first, second = records(parsed(csv(rules=policy), data))

    assert first.payment.raw == 'a,payin,succeeded,EUR,100,"one\ntwo\r\nthree"'
    assert (first.line, second.line, second.position) == (2, 5, "row 2")


def test_a_quoted_newline_in_a_mapped_field_is_kept() -> None:
    rules = RecordRules(columns={"scheme": "note"})

    (record,) = records(parsed(csv(rules=rules), HEADER + good(b"a", b'"x\ny"')))

    assert record.payment.scheme == "x\ny"


def test_doubled_quotes_are_one() -> None:
    assert references(parsed(csv(), HEADER + good(b'"say ""hi"", a"'))) == ['say "hi", a']


@pytest.mark.parametrize("value", [b"=cmd()", b"+1", b"-1", b"@x", b"\tx", b"'x"])
def test_what_a_spreadsheet_would_run_is_kept_as_it_is(value: bytes) -> None:
    assert references(parsed(csv(), HEADER + good(value))) == [value.decode()]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"a,payin,succeeded,EUR,100\n", "ragged_row"),
        (b"a,payin,succeeded,EUR,100,x,y\n", "ragged_row"),
        (b"a,payin,succeeded,EUR,1.5,x\n", "invalid_amount"),
        (b"a,payin,succeeded,EUR,100,\xff\xfe\n", "invalid_encoding"),
        (b"\xed\xa0\x80,payin,succeeded,EUR,100,\n", "invalid_encoding"),
        (b"a,payin,succeeded,EUR,100,\x00\n", "nul_character"),
        (b'a,payin,succeeded,EUR,100,"x"y\n', "malformed_row"),
        (b"a,payin,succeeded,EUR,100,x\ry\n", "malformed_row"),
        (b",payin,succeeded,EUR,100,\r\n", "missing_reference"),
    ],
)
def test_a_bad_row_is_rejected_with_its_bytes_and_the_rest_goes_through(row: bytes, reason: str) -> None:
    found = parsed(csv(), HEADER + good(b"before") + row + good(b"after"))

    assert references(found) == ["before", "after"]
    (rejection,) = rejections(found)
    assert (rejection.reason, rejection.raw, rejection.line, rejection.position) == (reason, row, 3, "row 2")
    assert records(found)[1].line == 4


@pytest.mark.parametrize(
    "cut", [b"b,payin,succ", b"b", b'b,payin,succeeded,EUR,100,"no', b'b,payin,succeeded,EUR,"1\n2\n']
)
def test_a_record_cut_at_the_end_is_truncated(cut: bytes) -> None:
    found = parsed(csv(), HEADER + good(b"a") + cut)

    assert references(found) == ["a"]
    assert [(rejection.reason, rejection.raw) for rejection in rejections(found)] == [("truncated", cut)]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"reference,type,status,asset\n", "missing_column"),
        (b"a,b,c\n1,2,3\n", "missing_column"),
        (b"reference,type,status,asset,amount,reference\n", "duplicate_column"),
        (b"reference,type,status,asset,amount,x,x\n", "duplicate_column"),
        (b"reference,Reference,type,status,asset,amount\n", "duplicate_column"),
        (b'"reference,type,status\n', "malformed_header"),
        (b"reference,type,status,asset,amount,\xff\n", "invalid_encoding"),
        (b"\xff\xfe\x00\x00r\x00\x00\x00", "unsupported_encoding"),
        (b"reference,type,status,asset,amount\ra,payin,failed,EUR,1\r", "malformed_header"),
    ],
)
def test_a_file_whose_header_is_wrong_is_refused_whole(header: bytes, reason: str) -> None:
    with pytest.raises(RecordRejected) as caught:
        parsed(csv(), header)

    assert caught.value.code == reason


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_delimiter_is_the_one_with_which_the_header_makes_sense(delimiter: str) -> None:
    data = (HEADER + good(b"a") + good(b"b")).replace(b",", delimiter.encode())

    assert references(parsed(csv(), data)) == ["a", "b"]


def test_a_configured_delimiter_is_used_and_no_other() -> None:
    data = HEADER.replace(b",", b"^") + good(b"a").replace(b",", b"^")

    assert references(parsed(csv(delimiter="^"), data)) == ["a"]
    with pytest.raises(RecordRejected):
        parsed(csv(delimiter=";"), data)


@pytest.mark.parametrize(
    ("mark", "encoding"), [(b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")]
)
def test_a_byte_order_mark_names_the_encoding_and_is_no_part_of_the_header(mark: bytes, encoding: str) -> None:
    bad = "größe,payin,?,EUR,1,\N{GRINNING FACE}\n".encode(encoding)
    data = mark + (HEADER.decode() + "é,payin,failed,EUR,1,ß\n").encode(encoding) + bad

    found = parsed(csv(), data, block=7)

    assert references(found) == ["é"]
    assert rejections(found)[0].raw == bad
    assert found[-1].place["offset"] == len(data)


def test_a_lone_surrogate_in_utf_16_costs_its_row_alone() -> None:
    bad = "b,payin,failed,EUR,1,\ud800\n".encode("utf-16-le", "surrogatepass")
    data = b"\xff\xfe" + HEADER.decode().encode("utf-16-le") + bad + "c,payin,failed,EUR,1,\n".encode("utf-16-le")

    found = parsed(csv(), data)

    assert references(found) == ["c"]
    assert [(item.reason, item.raw) for item in rejections(found)] == [("invalid_encoding", bad)]


def test_half_a_character_at_the_end_of_utf_16_is_truncated() -> None:
    data = b"\xff\xfe" + (HEADER.decode() + "c,payin,failed,EUR,1,\n").encode("utf-16-le") + b"x"

    found = parsed(csv(), data)

    assert references(found) == ["c"]
    assert [(item.reason, item.raw) for item in rejections(found)] == [("truncated", b"x")]


def test_an_encoding_can_be_configured() -> None:
    assert references(parsed(csv(encoding=Encoding.CP1252), HEADER + good(b"gr\xf6\xdfe \x80"))) == ["größe €"]
    assert [item.reason for item in rejections(parsed(csv(encoding=Encoding.CP1252), HEADER + good(b"\x81")))] == [
        "invalid_encoding"
    ]


def test_a_field_of_ten_megabytes_is_read_and_a_larger_one_rejected() -> None:
    large, larger = b"x" * delimited.MAX_FIELD, b"x" * (delimited.MAX_FIELD + 1)

    found = parsed(csv(), HEADER + good(b"a", large) + good(b"b", larger) + good(b"c"))

    assert references(found) == ["a", "c"]
    assert [(item.reason, item.raw) for item in rejections(found)] == [("field_too_large", good(b"b", larger))]


def test_a_quoted_field_of_ten_megabytes_with_newlines_is_read() -> None:
    note = b'"' + b"a line of ten\n" * 700_000 + b'"'

    found = parsed(csv(), HEADER + good(b"a", note) + good(b"b"))

    assert references(found) == ["a", "b"]
    assert records(found)[1].line == 700_003


def test_a_stray_quote_costs_its_own_line_and_not_the_rest() -> None:
    stray = good(b"bad", b'"oops')
    rest = [good(b"r%d" % n) for n in range(3_000)]

    found = parsed(csv(), HEADER + good(b"a") + stray + b"".join(rest))

    assert references(found) == ["a", *(f"r{n}" for n in range(3_000))]
    assert [(item.reason, item.raw) for item in rejections(found)] == [("unterminated_quote", stray)]


def test_a_stray_quote_in_a_file_without_end_is_given_up_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_RECORD", 50_000)
    stray = good(b"bad", b'"oops')
    rest = [good(b"r%d" % n) for n in range(5_000)]

    found = parsed(csv(), HEADER + stray + b"".join(rest), block=10_000)

    assert references(found) == [f"r{n}" for n in range(5_000)]
    assert [item.reason for item in rejections(found)] == ["unterminated_quote"]


def test_a_line_too_large_to_hold_is_passed_over_and_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_RECORD", 10_000)
    monkeypatch.setattr(rows, "KEPT_HEAD", 1_000)
    line = good(b"x" * 100_000)

    found = parsed(csv(), HEADER + good(b"a") + line + good(b"b"), block=3_000)

    assert references(found) == ["a", "b"]
    (rejection,) = rejections(found)
    assert (rejection.reason, rejection.position, rejection.line) == ("record_too_large", "row 2", 3)
    assert (rejection.raw, rejection.size_bytes) == (line[:1_000], len(line))
    assert records(found)[1].line == 4


def test_a_place_is_never_inside_a_record_that_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_RECORD", 10_000)
    data = HEADER + good(b"a") + good(b"x" * 100_000) + good(b"b")

    first, *rest = parsed(csv(), data, block=3_000)
    again = parsed(csv(), data, place=first.place)

    assert references([first]) == ["a"]
    assert rejections(again) == rejections(rest)


def test_the_standard_librarys_words_are_those_we_look_for() -> None:
    with pytest.raises(standard.Error, match=delimited._UNCLOSED):
        list(standard.reader(['"x'], strict=True))
    standard.field_size_limit(delimited.MAX_FIELD)
    with pytest.raises(standard.Error, match=delimited._FIELD_LIMIT):
        list(standard.reader(["x" * (delimited.MAX_FIELD + 1)], strict=True))


def test_batches_are_bounded() -> None:
    found = parsed(csv(), HEADER + b"".join(good(b"r%d" % n) for n in range(9_000)))

    assert max(len(batch.records) for batch in found) == rows.BATCH_ROWS
    assert references(found) == [f"r{n}" for n in range(9_000)]


ODD = ['"', '""', '"x"', '"\n"', "\r", "\n", "\r\n", ",", "\x00", "ü", "\ud8ff", "\N{GRINNING FACE}"]
CELL = st.one_of(st.sampled_from(["a", "payin", "failed", "EUR", "1", "", *ODD]), st.text(max_size=5))
ROWS = st.lists(st.one_of(st.just(good(b"a").decode()), st.lists(CELL, max_size=8).map(",".join)), max_size=12)
PIECES = ROWS.map(lambda pieces: "\n".join(pieces).encode("utf-8", "surrogatepass"))


@given(body=PIECES, block=st.integers(1, 40), batch=st.integers(1, 3), most=st.sampled_from([60, 70, 100, 10_000]))
@example(body=b'a,payin,failed,EUR,1,"\n', block=1, batch=1, most=10_000)
@example(body=b'x,"' + b"\n" * 90 + b'"\na,payin,failed,EUR,1,\n' * 2, block=30, batch=1, most=60)
def test_neither_blocks_nor_resuming_change_what_is_read(body: bytes, block: int, batch: int, most: int) -> None:
    data = HEADER + body
    patch = pytest.MonkeyPatch()
    patch.setattr(rows, "BATCH_ROWS", batch)
    patch.setattr(delimited, "MAX_RECORD", most)
    patch.setattr(delimited, "OPEN_QUOTE", most // 2)

    with patch.context():
        whole = parsed(csv(), data)
        pieces = parsed(csv(), data, block=block)
        resumed = [parsed(csv(), data, place=json.loads(json.dumps(piece.place))) for piece in pieces]

    assert records(pieces) == records(whole)
    assert rejections(pieces) == rejections(whole)
    for index, rest in enumerate(resumed):
        assert records(rest) == records(pieces[index + 1 :])
        assert rejections(rest) == rejections(pieces[index + 1 :])
    patch.undo()


@given(body=PIECES)
def test_every_row_has_one_fate_and_every_rejection_its_own_bytes(body: bytes) -> None:
    """
    Rejected bytes are those of the file, in order, each byte at most once; and positions have no gap.
    """
    found = parsed(csv(), HEADER + body)

    numbers = [int(item.position.removeprefix("row ")) for item in (*records(found), *rejections(found))]
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    at = 0
    for rejection in rejections(found):
        at = body.index(rejection.raw, at) + len(rejection.raw)
