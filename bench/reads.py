"""
What is asked of every read endpoint: the first page, a deep one, each filter where it finds much and where it finds
little, and what is not there.

The endpoints are those of `docs/openapi.json`: one that has no requests here, or a parameter that none of them uses,
fails the benchmark, so that a newcomer cannot go unmeasured.
"""

# ruff: noqa: E501  SQL reads better in lines of its own length

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tillstream.control.cursor import ref_of

DOCUMENT = Path(__file__).parent.parent / "docs" / "openapi.json"
EVENTS = "/api/v1/events"  # measured apart: its answer does not end
NOBODY = "00000000-0000-4000-8000-000000000000"
_SAMPLES = 300

# Endpoint → its variants: what it is called, and the query or the place in the path.
_ASKED = """
SELECT 'payments' AS what, array_agg(id) AS found FROM (SELECT id FROM payments JOIN (SELECT g * (SELECT max(ordinal) FROM payments) / $1 AS ordinal FROM generate_series(1, $1::bigint) g) s USING (ordinal)) p
UNION ALL SELECT 'refunded', array_agg(id)
  FROM (SELECT id FROM payments WHERE adjustments > 1 LIMIT $1) p
UNION ALL SELECT 'references', array_agg(reference) FROM (SELECT reference FROM payments JOIN (SELECT g * (SELECT max(ordinal) FROM payments) / $1 AS ordinal FROM generate_series(1, $1::bigint) g) s USING (ordinal)) p
UNION ALL SELECT 'runs', array_agg(id::text) FROM (SELECT id FROM connector_runs ORDER BY hashtext(id::text) LIMIT $1) r
UNION ALL SELECT 'run numbers', array_agg(row_id::text) FROM (SELECT row_id FROM connector_runs ORDER BY hashtext(id::text) LIMIT $1) r
UNION ALL SELECT 'open', array_agg(id::text) FROM (SELECT id FROM connector_runs WHERE closed_at IS NULL LIMIT $1) r
UNION ALL SELECT 'letters', array_agg(id) FROM (SELECT id FROM dead_letters ORDER BY id LIMIT $1) l
UNION ALL SELECT 'failed', array_agg(run_id::text) FROM (SELECT run_id FROM dead_letters ORDER BY id LIMIT $1) l
UNION ALL SELECT 'replays', array_agg(id::text) FROM (SELECT id FROM replays LIMIT $1) r
UNION ALL SELECT 'names', array_agg(name) FROM (SELECT name FROM sp_v2_connectors ORDER BY id LIMIT $1) c
UNION ALL SELECT 'numbers', array_agg(id::text) FROM (SELECT id FROM sp_v2_connectors ORDER BY id LIMIT $1) c
UNION ALL SELECT 'ids', array_agg(id::text) FROM (SELECT id FROM connectors WHERE deleted_at IS NULL LIMIT $1) c
UNION ALL SELECT 'cursors', array_agg(connector_id || '/' || task) FROM (SELECT * FROM checkpoints ORDER BY task LIMIT $1) c
UNION ALL SELECT 'edits', array_agg(connector_id || '/' || id) FROM (SELECT * FROM cursor_edits LIMIT $1) e
UNION ALL SELECT 'deleted', array_agg(name) FROM (SELECT name FROM connectors WHERE deleted_at IS NOT NULL LIMIT $1) c
"""
_PLACES = """
SELECT (SELECT max(ordinal) / 2 FROM payments) AS payment,
       (SELECT array[started_at::text, id::text] FROM connector_runs ORDER BY started_at DESC, id DESC OFFSET $1 / 2 LIMIT 1) AS run,
       (SELECT array[failed_at::text, id] FROM dead_letters ORDER BY failed_at DESC, id OFFSET $2 / 2 LIMIT 1) AS letter,
       (SELECT name FROM sp_v2_connectors ORDER BY name OFFSET (SELECT count(*) / 2 FROM sp_v2_connectors) LIMIT 1) AS connector,
       (SELECT array[started_at::text, id::text] FROM replays ORDER BY started_at DESC, id DESC OFFSET 250 LIMIT 1) AS replay,
       (SELECT max(id) / 2 FROM activity WHERE connector_id = $3) AS activity,
       (SELECT task FROM checkpoints WHERE connector_id = $3 ORDER BY task
         OFFSET (SELECT count(*) / 2 FROM checkpoints WHERE connector_id = $3) LIMIT 1) AS task,
       (SELECT max(created_at) FROM payments WHERE ordinal > (SELECT max(ordinal) - 1000 FROM payments)) AS newest,
       (SELECT min(created_at) FROM payments WHERE ordinal < 1000) AS oldest,
       (SELECT provider FROM payments ORDER BY ordinal DESC LIMIT 1) AS provider
"""


@dataclass(frozen=True, slots=True)
class Read:
    """One variant of an endpoint: addresses that take turns, the status that each must have, how deep it begins."""

    endpoint: str
    variant: str
    paths: Sequence[str]
    status: int = 200
    after: Sequence[object] | None = None  # the place that takes the first page's in its `next`


@dataclass(slots=True)
class Reads:
    """All of them."""

    made: list[Read] = field(default_factory=list)

    def add(
        self,
        endpoint: str,
        variant: str,
        parts: Sequence[str] = ("",),
        *,
        expect: int = 200,
        after: Sequence[object] | None = None,
        **query: object,
    ) -> None:
        """A variant: what stands for the path's parameter, in turn, and the query."""
        asked = f"?{urlencode({name.rstrip('_'): str(value) for name, value in query.items()})}" if query else ""
        begin, brace, rest = endpoint.partition("{")
        end = rest.partition("}")[2]
        paths = [f"{begin}{quote(part, safe='')}{end}{asked}" if brace else f"{begin}{asked}" for part in parts]
        self.made.append(Read(endpoint, variant, paths, expect, after))


def endpoints() -> Mapping[str, frozenset[str]]:
    """Every path that can be read, with the names of its query's parameters."""
    document = json.loads(DOCUMENT.read_text())
    return {
        path: frozenset(each["name"] for each in methods["get"].get("parameters", ()) if each["in"] == "query")
        for path, methods in document["paths"].items()
        if "get" in methods
    }


def unmeasured(reads: Sequence[Read], document: Mapping[str, frozenset[str]]) -> list[str]:
    """Endpoints and parameters that no request asks, and requests of endpoints that are not there."""
    missing = []
    for path, parameters in document.items():
        asked = [read for read in reads if read.endpoint == path]
        if not asked and path != EVENTS:
            missing.append(path)
            continue
        for name in sorted(parameters if path != EVENTS else ()):
            used = any(f"{mark}{name}=" in each for read in asked for each in read.paths for mark in "?&")
            if not used and not (name == "after" and any(read.after for read in asked)):
                missing.append(f"{path} ?{name}")
    return [*missing, *sorted({read.endpoint for read in reads} - set(document))]


async def reads(looking: Any) -> list[Read]:
    """The requests, of what is there; `looking` is a connection to the filled database."""
    rows = await looking.fetch(_ASKED, _SAMPLES)
    of: dict[str, list[str]] = {row["what"]: list(row["found"] or ()) for row in rows}
    busy = await looking.fetchrow(
        "SELECT c.id, s.name FROM connectors c JOIN sp_v2_connectors s ON s.id = c.row_id"
        " WHERE c.id = (SELECT connector_id FROM connector_runs GROUP BY 1 ORDER BY count(*) DESC LIMIT 1)"
    )
    counts = await looking.fetchrow(
        "SELECT (SELECT count(*) FROM connector_runs) AS runs, (SELECT count(*) FROM dead_letters) AS letters"
    )
    place = await looking.fetchrow(_PLACES, counts["runs"], counts["letters"], busy["id"])
    found = Reads()
    name = str(busy["name"])
    _connectors(found, of, name, place)
    _runs(found, of, name, place)
    _payments(found, of, name, place)
    _letters(found, of, name, place)
    _seeds(found, of, name, place)
    found.add("/api/v1/source-types", "all")
    found.add("/api/v1/source-types/{kind}", "each", ("sftp", "directory", "http_api", "postgres_changes"))
    found.add("/api/v1/source-types/{kind}", "none", ("nothing",), expect=404)
    found.add("/api/v1/templates", "all")
    found.add("/api/v1/templates/{name}", "each", ("axis-sftp", "razorpay", "sabpaisa"))
    found.add("/api/v1/templates/{name}", "none", ("nothing",), expect=404)
    found.add("/api/v1/ledger", "the last proof")
    found.add("/api/v1/lag", "all groups")
    found.add("/api/v1/replays", "first page")
    found.add("/api/v1/replays", "200 of them", limit=200)
    found.add("/api/v1/replays", "deep", after=_at(place["replay"]))
    found.add("/api/v1/replays/{replay_id}", "by id", of["replays"])
    found.add("/api/v1/replays/{replay_id}", "none", (NOBODY,), expect=404)
    return found.made


def _at(place: Sequence[str]) -> list[object]:
    return [datetime.fromisoformat(place[0]).isoformat(), place[1]]


def _connectors(found: Reads, of: Mapping[str, list[str]], busy: str, place: Any) -> None:
    at = "/api/v1/connectors"
    found.add(at, "first page")
    found.add(at, "200 of them", limit=200)
    found.add(at, "deep", after=[place["connector"]])
    found.add(at, "by part of a name, many", q="partner", limit=50)
    found.add(at, "by part of a name, one", q="0123")
    found.add(at, "by part of a name, none", q="nothing like it")
    found.add(at, "by status", status="PAUSED")
    found.add(at, "by kind", kind="sftp")
    found.add(at, "by health", health="down")
    one = f"{at}/{{ref}}"
    found.add(one, "by name", of["names"])
    found.add(one, "by id", of["ids"])
    found.add(one, "by number", of["numbers"])
    found.add(one, "none", ("nobody",), expect=404)
    for below in ("tasks", "cursors", "events", "versions"):
        found.add(f"{one}/{below}", "of any", of["names"])
        found.add(f"{one}/{below}", "of the busiest", (busy,))
        found.add(f"{one}/{below}", "of the busiest, 200", (busy,), limit=200)
        found.add(f"{one}/{below}", "of none", ("nobody",), expect=404)
    tasks = [f"{owner}/{ref_of(task)}" for owner, _, task in (each.partition("/") for each in of["cursors"])]
    for below, named in (("cursors/{task}", tasks), ("cursor-edits/{edit_id}", of["edits"])):
        noun = below.partition("/")[0]
        paths = [f"{at}/{owner}/{noun}/{each}" for owner, _, each in (each.partition("/") for each in named)]
        found.made.append(Read(f"{one}/{below}", "of any", paths))
        found.made.append(Read(f"{one}/{below}", "none", [f"{at}/{quote(busy)}/{noun}/{NOBODY}"], 404))
    found.add(f"{one}/cursors", "deep", (busy,), after=[place["task"]])
    found.add(f"{one}/events", "deep", (busy,), after=[place["activity"]])
    found.add(f"{one}/versions", "deep", (busy,), after=[100])
    found.made.append(
        Read(
            f"{one}/versions/{{version}}", "of the busiest", [f"{at}/{quote(busy)}/versions/{n}" for n in range(1, 300)]
        )
    )
    found.made.append(Read(f"{one}/versions/{{version}}", "none", [f"{at}/{quote(busy)}/versions/99999"], 404))
    found.made.append(
        Read(
            f"{one}/versions/diff",
            "of the busiest",
            [f"{at}/{quote(busy)}/versions/diff?from={n}&to={n + 1}" for n in range(1, 299)],
        )
    )


def _runs(found: Reads, of: Mapping[str, list[str]], busy: str, place: Any) -> None:
    at = "/api/v1/runs"
    found.add(at, "first page")
    found.add(at, "200 of them", limit=200)
    found.add(at, "deep", after=_at(place["run"]))
    found.add(at, "of the busiest connector", connector=busy)
    found.add(at, "of the busiest connector, deep", connector=busy, after=_at(place["run"]))
    found.add(at, "of the busiest connector, that failed", connector=busy, status="FAILED")
    found.add(at, "of a deleted connector", connector=of["deleted"][0])
    for status in ("SUCCESS", "FAILED", "RUNNING"):
        found.add(at, f"by status, {status}", status=status)
    for type_ in ("SCHEDULED", "BACKFILL", "TEST"):
        found.add(at, f"by type, {type_}", type=type_)
    found.add(at, "by type and status", type="BACKFILL", status="FAILED")
    found.add(at, "since long ago", since=place["oldest"].isoformat())
    found.add(at, "until long ago", until=place["oldest"].isoformat())
    found.add(
        at,
        "of a day long ago, failed",
        since=place["oldest"].isoformat(),
        until=place["newest"].isoformat(),
        status="FAILED",
    )
    found.add(at, "of none", connector="nobody", status="FAILED")
    found.made[-1] = Read(at, "of nobody", found.made[-1].paths, 404)
    one = f"{at}/{{run}}"
    found.add(one, "by id", of["runs"])
    found.add(one, "by the beginning of an id", [each[:13] for each in of["runs"]])
    found.add(one, "by number", of["run numbers"])
    found.add(one, "none", (NOBODY,), expect=404)
    for below in ("files", "events"):
        found.add(f"{one}/{below}", "of any", of["runs"])
        found.add(f"{one}/{below}", "of one at work", of["open"], limit=200)
        found.add(f"{one}/{below}", "deep", of["runs"][:1], after=[1_000_000_000 if below == "files" else 1])
        found.add(f"{one}/{below}", "of none", (NOBODY,), expect=404)


def _payments(found: Reads, of: Mapping[str, list[str]], busy: str, place: Any) -> None:
    at = "/api/v1/payments"
    found.add(at, "first page")
    found.add(at, "200 of them", limit=200)
    found.add(at, "deep", after=[place["payment"]])
    found.add(at, "by provider, many", provider=place["provider"])
    found.add(at, "by provider, none", provider="nobody")
    found.add(at, "by provider, none, deep", provider="nobody", after=[place["payment"]])
    for status in ("succeeded", "settled", "captured"):
        found.add(at, f"by status, {status}", status=status)
    found.add(at, "by type", type="payout")
    found.add(at, "by asset, many", asset="EUR/2")
    found.add(at, "by asset, few", asset="JPY/0")
    found.made.append(Read(at, "by reference", [f"{at}?reference={each}" for each in of["references"]]))
    found.made.append(
        Read(
            at,
            "by reference and provider",
            [f"{at}?reference={each}&provider=partner-0007" for each in of["references"]],
        )
    )
    found.add(at, "by reference, none", reference="nothing")
    found.add(at, "by connector, the busiest", connector=busy)
    found.add(at, "by connector, the busiest, 200", connector=busy, limit=200)
    found.add(at, "by connector, one that never ran", connector=of["names"][-1])
    found.add(at, "by connector, none", connector="nobody", status="failed")
    found.made[-1] = Read(at, "of nobody", found.made[-1].paths, 404)
    found.add(at, "since now", since=place["newest"].isoformat())
    found.add(at, "until long ago", until=place["oldest"].isoformat())
    found.add(
        at, "by time and status", since=place["oldest"].isoformat(), until=place["newest"].isoformat(), status="expired"
    )
    for below in ("", "/lineage"):
        one = f"{at}/{{payment}}{below}"
        found.add(one, "by id", of["payments"])
        found.add(one, "of several events", of["refunded"])
        found.add(one, "none", ("nothing",), expect=404)


def _letters(found: Reads, of: Mapping[str, list[str]], busy: str, place: Any) -> None:
    at = "/api/v1/dead-letters"
    for below in ("", "/groups"):
        path = at + below
        for state in ("open", "redriven", "discarded", "all"):
            found.add(path, f"by state, {state}", state=state)
        found.add(path, "by stage, many", stage="source")
        found.add(path, "by stage, few", stage="sink")
        found.add(path, "by reason, many", reason="invalid_amount")
        found.add(path, "by reason, none", reason="nothing")
        found.add(path, "by connector, the busiest", connector=busy)
        found.add(path, "by connector, one without any", connector=of["names"][-1])
        found.add(path, "by connector, discarded", connector=busy, state="discarded", reason="nothing")
        found.made.append(Read(path, "by run", [f"{path}?run={each}" for each in of["failed"]]))
        found.add(path, "by run, none", run=NOBODY)
        found.add(path, "of files that came again", corrected="true")
    found.add(at, "200 of them", limit=200)
    found.add(at, "deep", after=_at(place["letter"]))
    found.add(f"{at}/{{letter_id}}", "by id", of["letters"])
    found.add(f"{at}/{{letter_id}}", "by the beginning of an id", [each[:12] for each in of["letters"]])
    found.add(f"{at}/{{letter_id}}", "none", ("0" * 32,), expect=404)


def _seeds(found: Reads, of: Mapping[str, list[str]], busy: str, place: Any) -> None:
    found.add("/payments", "first page")
    found.add("/payments", "500 of them", limit=500)
    found.add("/payments", "by provider", provider="partner-0007")
    found.add("/payments", "by provider, none", provider="nobody")
    for status in ("succeeded", "settled", "captured"):
        found.add("/payments", f"by status, {status}", status=status)
    found.made.append(Read("/payments", "by reference", [f"/payments?reference={each}" for each in of["references"]]))
    middle = base64.urlsafe_b64encode(f"p{place['payment']}".encode()).decode().rstrip("=")
    found.made.append(Read("/payments", "deep", [f"/payments?after={middle}"]))
    found.add("/payments/{identifier}", "by id", of["payments"])
    found.add("/payments/{identifier}", "none", ("nothing",), expect=404)
    found.add("/connectors", "all")
    found.add("/connectors", "by status", status="PAUSED")
    found.add("/connectors", "by type", connector_type="BANK_SFTP")
    found.add("/connectors", "by source entity", source_entity="PARTNER-0123")
    found.add("/connectors", "by part of a name", search="0123")
    found.add("/ops/connectors", "all")
    found.add("/ops/connectors", "by status", status="PAUSED")
    found.add("/ops/connectors", "by type", type="SFTP")
    found.add("/ops/connectors", "by provider", provider="partner-0123")
    found.add("/ops/connectors", "by part of a name", search="0123")
    for family in ("/connectors", "/ops/connectors"):
        found.add(f"{family}/{{ref}}", "by number", of["numbers"])
        found.add(f"{family}/{{ref}}", "by name", of["names"])
        found.add(f"{family}/{{ref}}", "none", ("nobody",), expect=404)
        for below in ("history", "runs"):
            found.add(f"{family}/{{ref}}/{below}", "of any", of["numbers"])
            found.add(f"{family}/{{ref}}/{below}", "of the busiest", (busy,))
            found.add(f"{family}/{{ref}}/{below}", "of the busiest, deep", (busy,), limit=30, offset=9_000)
            found.add(f"{family}/{{ref}}/{below}", "of none", ("nobody",), expect=404)
    found.add("/connectors/{ref}/tasks", "of any", of["names"])
    found.add("/connectors/{ref}/tasks", "of the busiest", (busy,))
    found.add("/connectors/{ref}/tasks", "of none", ("nobody",), expect=404)
