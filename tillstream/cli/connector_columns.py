"""How connectors and what belongs to them are shown as rows: the columns of tables, and all fields, for CSV."""

from __future__ import annotations

import json

from tillstream.cli.instant import seconds
from tillstream.cli.rows import Columns

CAUSE_CHARS = 60  # of a cause in a table; `show` has all of it


def short(cause: object) -> str:
    """As much of it as a table has room for; `show` has all of it."""
    text = "" if cause is None else str(cause)
    return text if len(text) <= CAUSE_CHARS else f"{text[: CAUSE_CHARS - 1]}…"


def plain(value: object) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


CONNECTORS = Columns(
    {
        "connector": "name",
        "kind": "kind",
        "status": "status",
        "health": "health",
        "cause": lambda view: short(view.get("cause")),
        "last run": "last_run_status",
        "at": lambda view: seconds(view.get("last_run_at")),
        "runs": "total_runs",
    },
    (
        *("id", "number", "name", "kind", "provider", "provider_frozen", "status", "configuration", "health", "cause"),
        *("version", "success_rate", "total_runs", "last_run_at", "last_run_status", "created_at", "updated_at"),
        *("schedule", "revision", "type", "source_entity", "pause_note", "report"),
    ),
)
TASKS = Columns(
    {
        "task": "descriptor",
        "status": "status",
        "since": lambda task: seconds(task.get("created_at")),
        "error": lambda task: short(task.get("error")),
        "id": "id",
    },
    ("id", "descriptor", "status", "error", "created_at", "state", "live"),
)
CURSORS = Columns(
    {
        "task": lambda cursor: cursor.get("descriptor") or cursor.get("task"),
        "done": "done",
        "cursor": "cursor",
        "run": lambda cursor: str(cursor.get("run"))[:8],
        "at": lambda cursor: seconds(cursor.get("updated_at")),
    },
    (
        *("id", "ref", "task", "descriptor", "cursor", "done", "run", "epoch", "seq", "revision_at", "updated_at"),
        *("pending", "etag"),
    ),
)
VERSIONS = Columns(
    {
        "version": "version",
        "provider": "provider",
        "made": lambda version: seconds(version.get("made_at")),
        "by": "made_by",
    },
    ("version", "kind", "provider", "configuration", "made_at", "made_by"),
)
TEMPLATES = Columns(
    {
        "template": "name",
        "kind": "kind",
        "summary": "summary",
        "asks for": lambda row: ", ".join(str(each["field"]) for each in row.get("placeholders") or ()),
    },
    ("name", "summary", "kind", "provider", "configuration", "placeholders"),
)
