"""A file's beginning, tried: what a connector's mapping makes of it, for a check."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.files.reading import FileReader
from schemas.errors import RecordRejected, SourceMisconfigured

SAMPLE_BYTES = 65_536
_HINT = "let the options columns, status_map and the like say what is what"


@dataclass(slots=True)
class Sample:
    """How many records of a file's beginning can be used, how many cannot, and why; what its header lacks."""

    read: int = 0
    rejected: int = 0
    problem: str = ""
    note: str = ""


def tried(reader: FileReader, *, name: str, shown: str, head: bytes, size_bytes: int) -> str:
    """
    What a check says of a file whose first bytes are `head`; `shown` is its name for operators.

    Raises:
        SourceMisconfigured: pause; none of them can be used, or a column that the configuration names is not there.
    """
    sample = _sample(reader, name, head, whole=len(head) >= size_bytes)
    if sample.rejected and not sample.read:
        raise SourceMisconfigured(f"{shown}: {sample.problem}", hint=_HINT)
    if sample.note:
        raise SourceMisconfigured(f"{shown}: {sample.note}", hint=_HINT)
    told = f", {sample.rejected} would be rejected: {sample.problem}" if sample.rejected else ""
    return f"{shown}: {sample.read + sample.rejected} records in its first {len(head)} bytes{told}"


def _sample(reader: FileReader, name: str, head: bytes, *, whole: bool) -> Sample:
    parser, sample = reader.parser(name, source_object=""), Sample()
    try:
        for parsed in parser.feed(head, final=whole):
            sample.read += len(parsed.records) + parsed.filtered
            sample.rejected += len(parsed.rejections)
            problems = (f"{each.position}: {each.message}" for each in parsed.rejections)
            sample.problem = sample.problem or next(problems, "")
    except RecordRejected as exc:
        return Sample(rejected=1, problem=str(exc))
    sample.note = parser.note
    return sample
