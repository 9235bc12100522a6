"""What each kind of source says of a cursor that an operator writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import ValidationError

from connectors import directory, http_api, postgres_changes, sftp
from connectors.cursor import CursorModel, Direction
from connectors.spec import SourceSpec

FILE = {"file": "a.csv", "stamp": "10-1"}
CSV = {
    **FILE,
    "format": "csv",
    "offset": 40,
    "row": 2,
    "line": 4,
    "encoding": "utf-8",
    "header": ["id"],
    "delimiter": ",",
}
JSONL = {**FILE, "format": "jsonl", "offset": 40, "row": 2, "line": 3, "encoding": "utf-8"}
STREAM = {
    "system": "7",
    "timeline": 1,
    "database": 5,
    "slot": "till",
    "done": "0/20",
    "copied": ["public.events"],
    "published": {"public.events": "1.2"},
}
MARK = {"system": "7", "timeline": 1, "database": 5, "table": "public.events", "value": "12", "key": ["4"]}
WALK = {
    "window": ["2025-01-01T00:00:00+00:00", "2025-01-02T00:00:00+00:00"],
    "read_at": "2025-01-02T00:00:00+00:00",
    "place": {"page": 2},
    "asked": 1,
    "chain": "",
    "before": "",
    "passes": 0,
    "revisits": False,
}


def model_of(spec: SourceSpec, **options: Any) -> type[CursorModel]:
    assert spec.cursor is not None
    return spec.cursor(spec.config.model_validate({**spec.example, **options}))


STREAMS = model_of(postgres_changes.SPEC)
WATERMARK = model_of(postgres_changes.SPEC, mode="watermark", watermark="xid")
FILES = model_of(directory.SPEC)
API = model_of(http_api.SPEC)


def test_files_of_a_folder_and_of_a_server_have_one_shape_of_cursor() -> None:
    assert model_of(sftp.SPEC) is FILES


@pytest.mark.parametrize(
    ("model", "cursor"),
    [
        (FILES, FILE),
        (FILES, CSV),
        (FILES, {**CSV, "header": None, "delimiter": None}),
        (FILES, JSONL),
        (STREAMS, STREAM),
        (STREAMS, {**STREAM, "transaction": "0/30", "index": 3, "copying": {"table": "public.events", "after": None}}),
        (WATERMARK, MARK),
        (WATERMARK, {**MARK, "value": "", "key": []}),
        (API, {}),
        (API, {"until": "2025-01-01T00:00:00+00:00", "walk": WALK, "seen": "x" * 24, "mark": "a-1-2"}),
        (API, {"walk": {**WALK, "window": None}, "asked": False}),
    ],
)
def test_what_a_source_writes_is_taken(model: type[CursorModel], cursor: Mapping[str, Any]) -> None:
    assert model.model_validate(cursor).model_dump(exclude_unset=True) == cursor


@pytest.mark.parametrize(
    ("model", "cursor", "field"),
    [
        (FILES, {}, "file"),
        (FILES, {**FILE, "offset": 3}, ""),
        (FILES, {**JSONL, "offset": -1}, "offset"),
        (FILES, {**JSONL, "offset": "40"}, "offset"),
        (FILES, {**JSONL, "offset": True}, "offset"),
        (FILES, {**JSONL, "offset": None}, "offset"),
        (FILES, {**JSONL, "header": []}, ""),
        (FILES, {**CSV, "delimiter": None}, ""),
        (FILES, {**JSONL, "encoding": "ebcdic"}, "encoding"),
        (FILES, {**JSONL, "row_number": 1}, "row_number"),
        (STREAMS, {**STREAM, "done": "16:B3"}, "done"),
        (STREAMS, {**STREAM, "published": None}, "published"),
        (
            STREAMS,
            {**STREAM, "seen": [{"snapshot": "1:2", "until": "0/1", "at": "2025-01-01T00:00:00Z"}]},
            "seen.0.snapshot",
        ),
        (STREAMS, MARK, "slot"),
        (WATERMARK, {**MARK, "value": "yesterday"}, "value"),
        (API, {"until": "2025-01-01"}, "until"),
        (API, {"until": None}, "until"),
        (API, {"place": {"url": "ftp://elsewhere"}}, "place.url"),
        (API, {"walk": {**WALK, "passes": -1}}, "walk.passes"),
        (API, {"seen": "short"}, "seen"),
        (API, {"since": 1}, "since"),
    ],
)
def test_garbage_is_refused_by_the_field(model: type[CursorModel], cursor: Mapping[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(cursor)

    assert field in {".".join(map(str, each["loc"])) for each in refused.value.errors()}


@pytest.mark.parametrize(
    ("model", "before", "after", "fields"),
    [
        (FILES, JSONL, {**JSONL, "file": "b.csv"}, ["file"]),
        (FILES, JSONL, {**JSONL, "stamp": "11-1"}, ["stamp"]),
        (STREAMS, STREAM, {**STREAM, "done": "0/1F"}, ["done"]),
        (STREAMS, STREAM, {**STREAM, "slot": "other", "system": "8"}, ["system", "slot"]),
        (STREAMS, STREAM, {**STREAM, "published": {}}, ["published"]),
        (WATERMARK, MARK, {**MARK, "table": "public.others"}, ["table"]),
        (STREAMS, STREAM, {**STREAM, "done": "0/21"}, []),
        (STREAMS, {}, STREAM, []),
        (FILES, {}, JSONL, []),
    ],
)
def test_a_task_does_not_go_to_what_is_anothers_or_is_gone(
    model: type[CursorModel], before: Mapping[str, Any], after: Mapping[str, Any], fields: list[str]
) -> None:
    assert [each.field for each in model.model_validate(after).refusals(before)] == fields


@pytest.mark.parametrize(
    ("model", "before", "after", "direction"),
    [
        (FILES, FILE, JSONL, Direction.BACK),
        (FILES, JSONL, FILE, Direction.AHEAD),
        (FILES, {}, JSONL, Direction.AHEAD),
        (STREAMS, STREAM, {**STREAM, "done": "0/21"}, Direction.AHEAD),
        (
            STREAMS,
            {**STREAM, "transaction": "0/30", "index": 3},
            {**STREAM, "transaction": "0/30", "index": 1},
            Direction.BACK,
        ),
        (STREAMS, {}, STREAM, Direction.UNKNOWN),
        (WATERMARK, MARK, {**MARK, "value": "9"}, Direction.BACK),
        (API, {"until": "2025-01-02T00:00:00+00:00"}, {"until": "2025-01-01T00:00:00+00:00"}, Direction.BACK),
        (API, {}, {"until": "2025-01-01T00:00:00+00:00"}, Direction.UNKNOWN),
    ],
)
def test_which_way_an_edit_goes(
    model: type[CursorModel], before: Mapping[str, Any], after: Mapping[str, Any], direction: Direction
) -> None:
    assert model.model_validate(after).direction(before) is direction
