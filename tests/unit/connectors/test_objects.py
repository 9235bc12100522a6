from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.files import objects, rows
from connectors.files.objects import member_text, parse_object
from connectors.record import AmountUnit, NumberText, RawPolicy, RecordRules
from schemas.errors import RecordRejected
from tests.unit.connectors.parsing import array, good, lines, parsed, records, references, rejections, text


def reason(data: str) -> str:
    with pytest.raises(RecordRejected) as caught:
        parse_object(data)
    return caught.value.code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ("{", "malformed_json"),
        ("{]}", "malformed_json"),
        ("{'a':1}", "malformed_json"),
        ('{"a":1,}', "malformed_json"),
        ('{"a":01}', "malformed_json"),
        ('{"a":NaN}', "malformed_json"),
        ('{"a":Infinity}', "malformed_json"),
        ('{"a":-Infinity}', "malformed_json"),
        ('{"a":"\n"}', "malformed_json"),
        ('{"a":1} x', "malformed_json"),
        ('{"a":' + "9" * 5_000 + "}", "malformed_json"),
        ("[1]", "not_an_object"),
        ("1", "not_an_object"),
        ("null", "not_an_object"),
        ('"x"', "not_an_object"),
        ('{"a":1,"a":1}', "duplicate_key"),
        ('{"a" :1,"a" :2}', "duplicate_key"),
        ('{"a":1,"\\u0061":2}', "duplicate_key"),
        ('{"a":{"b":1,"b":2}}', "duplicate_key"),
        ('{"a":[{"b":1,"b":2}]}', "duplicate_key"),
        ('{"a":"\\u0000"}', "nul_character"),
        ('{"\\u0000":1}', "nul_character"),
        ('{"a":"\\ud800"}', "invalid_encoding"),
        ('{"a":["\\udfff"]}', "invalid_encoding"),
        ('{"a":"\udc80"}', "invalid_encoding"),
        ('{"a":' + "[" * 65 + "]" * 65 + "}", "too_deep"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "too_deep"),
        ("[" * 100_000, "too_deep"),
    ],
)
def test_what_is_not_strict_json_is_refused_by_name(data: str, code: str) -> None:
    assert reason(data) == code


@pytest.mark.parametrize(
    "data",
    [
        "{}",
        '{"a": "b\\"c\\" : d", "e" : 1}',
        '{"a":"\\ud83d\\ude00","b":"\\u00e9"}',
        '{"a":1.5,"b":1e400,"c":12345678901234567890123}',
        '{"a":{"b":[1,{"c":null}]},"d":true}',
        '{"a":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["}',
    ],
)
def test_strict_json_is_read(data: str) -> None:
    assert parse_object(data) == json.loads(data, parse_float=NumberText)


@pytest.mark.parametrize(
    ("number", "minor"),
    [
        ("12.50", 1250),
        ("12.5", 1250),
        ("12", 1200),
        ("-0.07", "invalid_amount"),
        ("0.29", 29),
        ("90071992547409.93", 9007199254740993),  # a float ends in .94
        ("1.10000000000000000000", 110),
        ("0.30000000000000004", "too_many_decimals"),  # 0.1 + 0.2 in somebody's floats
        ("1.15e1", "invalid_amount"),
        ("1e2", "invalid_amount"),
        ("1E400", "invalid_amount"),
        ("1e-1", "invalid_amount"),
        ("100000000000000.0", "amount_out_of_range"),
    ],
)
@pytest.mark.parametrize("beside", [{}, {"x": {"y": [1.5]}}])
def test_an_amount_with_decimals_is_read_from_its_own_text(
    number: str, minor: int | str, beside: dict[str, object]
) -> None:
    data = text("a", **beside).replace('"amount": 1', f'"amount": {number}')

    found = parsed(lines(RecordRules(amount_unit=AmountUnit.MAJOR)), data.encode())

    told = [record.payment.amount for record in records(found)] + [item.reason for item in rejections(found)]
    assert told == [minor]


@pytest.mark.parametrize("number", ["12.50", "12.0", "1e2"])
def test_a_number_with_decimals_is_no_amount_in_minor_units(number: str) -> None:
    data = text("a").replace('"amount": 1', f'"amount": {number}')

    (rejection,) = rejections(parsed(lines(), data.encode()))

    assert (rejection.reason, rejection.raw) == ("invalid_amount", data.encode())


@given(
    st.from_regex(r"-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
)
def test_a_number_and_its_text_are_the_same_amount(number: str) -> None:
    def told(spelled: str) -> object:
        data = text("a").replace('"amount": 1', f'"amount": {spelled}')
        found = parsed(array(RecordRules(amount_unit=AmountUnit.MAJOR)), data.encode())
        return [record.payment for record in records(found)] or [item.reason for item in rejections(found)]

    assert told(number) == told(f'"{number}"')


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(
    members=st.lists(st.tuples(st.sampled_from(["a", "b", 'q"', "\N{GRINNING FACE}", ": "]), JSON), max_size=4),
    space=st.sampled_from(["", " ", "\n\t"]),
    ascii_only=st.booleans(),
)
def test_the_fast_way_and_the_strict_way_agree(members: list[tuple[str, object]], space: str, ascii_only: bool) -> None:
    spelled = [f"{json.dumps(name)}{space}:{json.dumps(value, ensure_ascii=ascii_only)}" for name, value in members]
    data = "{" + ",".join(spelled) + "}"

    def outcome(parse: object) -> object:
        try:
            return parse(data)  # type: ignore[operator]
        except RecordRejected as exc:
            return exc.code

    assert outcome(parse_object) == outcome(objects._strict)


@given(members=st.dictionaries(st.text(max_size=4), JSON, max_size=4), indent=st.sampled_from([None, 2]))
def test_a_members_text_is_exact(members: dict[str, object], indent: int | None) -> None:
    data = " " + json.dumps(members, indent=indent)

    for name, value in members.items():
        found = member_text(data, name)
        assert found is not None
        assert json.loads(found) == value
        assert found in data
    assert member_text(data, "no such name") is None


def test_a_single_object_is_one_record() -> None:
    (record,) = records(parsed(array(), text("001").encode()))

    assert (record.position, record.line, record.payment.reference) == ("row 1", 1, "001")


def test_objects_may_follow_each_other_with_or_without_newlines() -> None:
    data = json.dumps(good("a"), indent=2) + text("b") + "\n\n" + text("c") + "\n"

    found = records(parsed(array(), data.encode()))

    assert [(record.payment.reference, record.line) for record in found] == [("a", 1), ("b", 7), ("c", 9)]


@pytest.mark.parametrize("data", ["", " \n", "[]", " [ ] ", "\ufeff", "\ufeff[]\n"])
def test_nothing_is_no_record(data: str) -> None:
    assert parsed(array(), data.encode()) == []


def test_an_arrays_elements_are_records_with_exact_offsets() -> None:
    data = ("[\n  " + text("ä") + " ,\n" + json.dumps(good("b", nested={"x": [1, "]"]}), indent=1) + "]\n").encode()
    patch = pytest.MonkeyPatch()
    patch.setattr(rows, "BATCH_ROWS", 1)

    with patch.context():
        found = parsed(array(), data)

    assert references(found) == ["ä", "b"]
    assert [record.line for record in records(found)] == [2, 3]
    assert data[: found[0].place["offset"]].endswith(text("ä").encode())
    patch.undo()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{oops}", "malformed_json"),
        ('{"a":1,"a":2}', "duplicate_key"),
        ("17", "not_an_object"),
        ("}", "malformed_json"),
        ("[]", "not_an_object"),
        ('[{"a":[1,2]},3]', "not_an_object"),
        ('"a, b]"', "not_an_object"),
        ("{}{}", "malformed_json"),
        ("{}", "missing_reference"),
        (text("x", amount=1.5), "invalid_amount"),
        (text("x", nested={"a": [1, {"b": "}]"}]}, status="odd"), "unknown_status"),
    ],
)
def test_a_bad_element_is_rejected_with_its_bytes_and_the_rest_goes_through(bad: str, reason: str) -> None:
    data = f"[{text('before')},\n {bad} ,\n{text('after')}]"

    found = parsed(array(), data.encode())

    assert references(found) == ["before", "after"]
    (rejection,) = rejections(found)
    assert (rejection.reason, rejection.raw, rejection.line, rejection.position) == (reason, bad.encode(), 2, "row 2")


@pytest.mark.parametrize("cut", ['{"reference":"b","ty', '{"reference":"b","x":{"y":1}', '{"a":"', "{", '"x', "1"])
def test_an_element_cut_at_the_end_is_truncated(cut: str) -> None:
    found = parsed(array(), f"[{text('a')},{cut}".encode())

    assert references(found) == ["a"]
    reason = "not_an_object" if cut == "1" else "truncated"
    assert [(item.reason, item.raw) for item in rejections(found)] == [(reason, cut.encode())]


def test_an_array_cut_between_elements_is_not_taken_for_a_whole_one() -> None:
    for end in ("", ",", " , "):
        found = parsed(array(), f"[{text('a')}{end}".encode())

        assert references(found) == ["a"]
        assert [(item.reason, item.raw) for item in rejections(found)] == [("truncated", b"")]


def test_an_object_cut_at_the_end_is_truncated() -> None:
    found = parsed(array(), b'{"reference":"a"')

    assert [(item.reason, item.raw) for item in rejections(found)] == [("truncated", b'{"reference":"a"')]


def test_what_follows_an_array_is_one_rejection() -> None:
    found = parsed(array(), f"[{text('a')}] {text('b')}\nmore".encode(), block=5)

    assert references(found) == ["a"]
    assert [(item.reason, item.raw) for item in rejections(found)] == [("trailing_data", f"{text('b')}\nmore".encode())]


def test_text_that_is_no_json_is_rejected_line_by_line() -> None:
    found = parsed(array(), b"hello\nworld\n")

    assert [(item.reason, item.raw) for item in rejections(found)] == [
        ("malformed_json", b"hello"),
        ("malformed_json", b"world"),
    ]


def test_an_element_too_large_to_hold_ends_the_file_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_RECORD", 10_000)
    data = f"[{text('a')},{text('b' * 100_000)},{text('c')}]".encode()

    found = parsed(array(), data, block=3_000)

    assert references(found) == ["a"]
    (rejection,) = rejections(found)
    assert (rejection.reason, rejection.size_bytes) == (
        "record_too_large",
        len(data) - data.index(b'{"reference": "bb'),
    )


def test_a_whole_record_can_be_kept_as_it_was_written() -> None:
    odd = '{ "reference":"a","type":"payin", "status":"failed","asset":"EUR","amount":1 , "x": 1.10 }'

    (record,) = records(parsed(array(RecordRules(raw=RawPolicy.RECORD)), f"[ {odd} ]".encode()))

    assert record.payment.raw == odd


def test_a_raw_object_is_kept_to_the_letter() -> None:
    data = text("a")[:-1] + ', "raw" : {"x": 1.10} }'

    (record,) = records(parsed(array(), data.encode()))

    assert record.payment.raw == '{"x": 1.10}'


def test_lines_are_records_and_blank_ones_nothing() -> None:
    data = f"{text('a')}\n\n \r\n{text('b')}\r\n{text('c')}"

    found = records(parsed(lines(), data.encode()))

    assert [(record.payment.reference, record.line) for record in found] == [("a", 1), ("b", 4), ("c", 5)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"{oops}", "malformed_json"),
        (b'{"a":"\xff"}', "invalid_encoding"),
        (b"[]", "not_an_object"),
        (b"{", "malformed_json"),
    ],
)
def test_a_bad_line_is_rejected_with_its_bytes_and_the_rest_goes_through(bad: bytes, reason: str) -> None:
    found = parsed(lines(), text("a").encode() + b"\n" + bad + b"\n" + text("b").encode())

    assert references(found) == ["a", "b"]
    assert [(item.reason, item.raw, item.line) for item in rejections(found)] == [(reason, bad, 2)]


def test_a_line_cut_at_the_end_is_truncated() -> None:
    found = parsed(lines(), f"{text('a')}\n{text('b')[:-5]}".encode())

    assert references(found) == ["a"]
    assert [(item.reason, item.raw) for item in rejections(found)] == [("truncated", text("b")[:-5].encode())]


def test_a_line_too_large_to_hold_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MAX_RECORD", 10_000)
    large = text("b" * 100_000)

    found = parsed(lines(), f"{text('a')}\n{large}\n{text('c')}".encode(), block=3_000)

    assert references(found) == ["a", "c"]
    assert [(item.reason, item.size_bytes, item.line) for item in rejections(found)] == [
        ("record_too_large", len(large) + 1, 2)
    ]


NESTED = text("é", x={"y": ["]", "}"]})
PIECE = st.one_of(
    st.sampled_from([text("a"), NESTED, "{}", "{", "}", "[", "]", ",", '"', "\\", "\n", "1", "x", " "]),
    st.text(max_size=4),
)


@pytest.mark.parametrize("make", [array, lines])
@given(
    body=st.lists(PIECE, max_size=10).map("".join),
    opened=st.booleans(),
    block=st.integers(1, 30),
    batch=st.integers(1, 2),
    most=st.sampled_from([20, 90, 10_000]),
)
def test_neither_blocks_nor_resuming_change_what_is_read(
    make: object, body: str, opened: bool, block: int, batch: int, most: int
) -> None:
    data = ("[" * opened + body).encode("utf-8", "surrogatepass")
    parser = make()  # type: ignore[operator]
    patch = pytest.MonkeyPatch()
    patch.setattr(rows, "BATCH_ROWS", batch)
    patch.setattr(objects, "MAX_RECORD", most)

    with patch.context():
        whole = parsed(parser, data)
        pieces = parsed(parser, data, block=block)
        resumed = [parsed(parser, data, place=json.loads(json.dumps(piece.place))) for piece in pieces]

    assert records(pieces) == records(whole)
    assert rejections(pieces) == rejections(whole)
    for index, rest in enumerate(resumed):
        assert records(rest) == records(pieces[index + 1 :])
        assert rejections(rest) == rejections(pieces[index + 1 :])
    patch.undo()
