"""
An installation as it stands after a year: connectors, runs, files, payments and their events, dead letters, activity.

Filled by set-based statements, not through the pipeline, but so that the ledger balances: every digest, key and sum is
what the pipeline would have made of the same records, and payments are the fold of their events. Triggers are off
while it is filled, indexes are made afterwards, and statistics are taken.
"""

# ruff: noqa: E501  SQL reads better in lines of its own length

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from connectors.registry import specs
from sinks.statement import statements

KINDS = ("sftp", "directory", "http_api", "postgres_changes")
TYPES = {"sftp": "BANK_SFTP", "http_api": "PG_API", "postgres_changes": "PG_DATABASE", "directory": None}
REASONS = (
    "invalid_amount",
    "missing_reference",
    "unknown_status",
    "invalid_instant",
    "invalid_asset",
    "amount_overflow",
)
PARTITIONS = 4
_FAILING = 60  # connectors that have dead letters; with the reasons, groups of them
_DELETED = 10  # connectors that are there no more, beside the others
_IDLE = 10  # connectors that never ran


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is. `runs` need at least a file each, `files` a payment."""

    connectors: int = 500
    runs: int = 100_000
    files: int = 200_000
    payments: int = 5_000_000
    letters: int = 100_000
    activity: int = 500_000
    open_runs: int = 40


def _digest(text: str) -> str:
    return f"encode(substr(sha256(convert_to({text}, 'UTF8')), 1, 16), 'hex')::uuid"


def _part(text: str) -> str:
    """As a netstring."""
    return f"length({text}) || ':' || {text}"


_INSTANT = "to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') || '+00:00'"

_RUNS = """
CREATE UNLOGGED TABLE bench.runs AS
SELECT *, CASE WHEN type <> 'TEST' THEN row_number() OVER (PARTITION BY type = 'TEST' ORDER BY r) END AS k,
       date_trunc('second', now() - (:runs - r + 1) * interval '31536000 seconds' / :runs) AS at,
       CASE WHEN r > :runs - :open_runs THEN 'RUNNING'
            WHEN h / 3300 % 100 < 4 THEN 'FAILED' WHEN h / 3300 % 100 < 9 THEN 'PARTIAL_SUCCESS' ELSE 'SUCCESS' END AS status
  FROM (SELECT r, md5('run ' || r)::uuid AS id, h,
               CASE WHEN h % 33 = 0 AND r <= :runs - :open_runs THEN 'TEST' WHEN h / 33 % 100 < 10 THEN 'MANUAL'
                    WHEN h / 33 % 100 < 12 THEN 'BACKFILL' ELSE 'SCHEDULED' END AS type,
               CASE WHEN r % 10 = 0 THEN 2 WHEN r % 1000 = 999 THEN :connectors + 1 + r / 1000 % :deleted
                    ELSE 3 + r::bigint * 7919 % (:connectors - 2 - :idle) END AS n
          FROM (SELECT r, hashint4(r) & 2147483647 AS h FROM generate_series(1, :runs) r) AS numbers) AS drawn
"""

_FILES = """
CREATE UNLOGGED TABLE bench.files AS
SELECT f, r.r, r.id AS run, r.n, r.status, c.id AS connector_id, c.name AS connector, c.provider, r.at + interval '10 seconds' AS at,
       encode(sha256(convert_to('file ' || f, 'UTF8')), 'hex') AS sha, c.provider || '-' || f || '.csv' AS filename,
       '/srv/partners/' || c.provider || '/' || c.provider || '-' || f || '.csv' AS path
  FROM (SELECT f, 1 + (f::bigint - 1) * (SELECT max(k) FROM bench.runs) / :files AS k FROM generate_series(1, :files) f) AS numbers
  JOIN bench.runs r USING (k)
  JOIN bench.connectors c ON c.n = r.n
 ORDER BY f
"""

_FAILING_FILES = """
CREATE UNLOGGED TABLE bench.failing AS
SELECT *, row_number() OVER (ORDER BY f) AS k FROM bench.files WHERE n BETWEEN 2 AND :failing AND status <> 'RUNNING' AND (hashint4(f) & 2147483647) % 10 = 0
"""

_ORIGINS = """
INSERT INTO event_origins (id, connector, log_partition, topic, source_object, path, first_seen_at)
SELECT md5(f || '/' || part)::uuid, connector_id, part, ':topic', sha, path, at
  FROM bench.files, generate_series(0, 3) part
"""

# Of each payment: the record that names it first, a refund of some, a dispute of few.
_BASE = f"""
SELECT *, {_part("provider")} || {_part("reference")} || {_part("type")} AS whose,
       at + line * interval '1 second' AS made_at,
       first_status IN ('succeeded', 'settled') AND p % 10 = 3 AS refunded, p % 500 = 17 AS disputed
  FROM (SELECT p, f.connector_id, f.run, f.f, f.sha, f.provider, f.at, 2 + (p - 1) % (:payments / :files) AS line,
               'pay_' || substr(md5(p::text), 1, 16) AS reference,
               CASE WHEN p % 20 = 0 THEN 'payout' ELSE 'payin' END AS type,
               100 + p::bigint * 7919 % 999900 AS amount,
               CASE WHEN p % 100000 = 1 THEN 'JPY/0' ELSE (ARRAY['EUR/2', 'USD/2', 'INR/2'])[1 + p % 3] END AS asset,
               (ARRAY['visa', 'mastercard', 'upi', 'sepa'])[1 + p % 4] AS scheme,
               CASE WHEN p % 50000 = 2 THEN 'settled' WHEN h < 74 THEN 'succeeded' WHEN h < 83 THEN 'failed' WHEN h < 89 THEN 'pending'
                    WHEN h < 95 THEN 'authorised' WHEN h < 98 THEN 'cancelled' ELSE 'expired' END AS first_status
          FROM (SELECT p, (hashint4(p) & 2147483647) % 100 AS h, 1 + (p::bigint - 1) * :files / :payments AS f
                  FROM generate_series(1, :payments) p) AS numbers
          JOIN bench.files f USING (f)
        OFFSET 0) AS drawn
OFFSET 0
"""

_EVENTS = f"""
INSERT INTO payment_events (digest, payment, key, content, run, origin, amount, effective_at, revision_at, revision_seq,
                            first_seen_at, log_offset, line, rank, sign, kind, moved, status, asset, scheme, provider, type,
                            reference, parent_reference, event_id, position, raw)
SELECT {_digest("event_id")}, {_digest("whose")},
       {
    _digest(
        f"whose || {_part('status')} || CASE kind WHEN 'd' THEN '5:delta' || {_part('own')} ELSE {_part('told_at')} || {_part('told')} END"
    )
},
       {
    _digest(
        " || ".join(
            [
                _part("provider"),
                _part("own"),
                _part("coalesce(parent, '')"),
                _part("type"),
                _part("status"),
                _part("told"),
                _part("asset"),
                _part("scheme"),
                _part("told_at"),
                "length(raw) + 1 || ':+' || raw",
            ]
        )
    )
},
       run, md5(f || '/' || p % 4)::uuid, amount, effective_at, at, line, at + interval '2 seconds', p::bigint * 3 + e, line,
       rank, sign, kind::"char", moved, status, asset, scheme, provider, type, own, parent, event_id, position, raw
  FROM (SELECT *, {_INSTANT.format("effective_at")} AS told_at, amount::text AS told,
               encode(substr(sha256(convert_to({_part("connector_id::text")} || {_part("sha")} || {
    _part("position")
}, 'UTF8')), 1, 16),
                      'hex') AS event_id,
               '{{"id": "' || own || '", "status": "' || status || '", "amount": ' || amount || '}}' AS raw
          FROM (SELECT b.p, b.f, b.run, b.connector_id, b.sha, b.provider, b.at, b.line, b.type, b.asset, b.scheme, b.whose, e.*
                  FROM ({_BASE}) b
                 CROSS JOIN LATERAL (
                     SELECT 0 AS e, first_status AS status, b.amount, b.reference AS own, NULL::text AS parent, made_at AS effective_at,
                            'row ' || line AS position, 's' AS kind, 0 AS sign,
                            CASE first_status WHEN 'pending' THEN 10 WHEN 'authorised' THEN 20 WHEN 'failed' THEN 30
                                 WHEN 'expired' THEN 31 WHEN 'cancelled' THEN 32 WHEN 'succeeded' THEN 41 ELSE 45 END AS rank,
                            first_status IN ('succeeded', 'settled') AS moved
                     UNION ALL
                     SELECT 1, 'partially_refunded', b.amount / 2, b.reference || '-r', b.reference, made_at + interval '1 day',
                            'refund ' || line, 'd', -1, 50, FALSE WHERE refunded
                     UNION ALL
                     SELECT 2, 'dispute', b.amount, b.reference, NULL, made_at + interval '2 days', 'dispute ' || line, 'o', 0, 1, FALSE
                      WHERE disputed
                 ) e
                OFFSET 0) AS told
        OFFSET 0) AS spelled
"""

_PAYMENTS = f"""
INSERT INTO payments (payment, status_key, initial_amount, status_at, created_at, first_seen_at, updated_at, adjustments,
                      status_rank, awaiting_original, over_refund, conflicting_amounts, asset_mismatch, amount, status, dispute,
                      asset, scheme, provider, type, reference, id)
SELECT {_digest("whose")},
       {
    _digest(
        f"whose || CASE WHEN refunded THEN '18:partially_refunded5:delta' || {_part('own')}"
        f" ELSE {_part('first_status')} || {_part('told_at')} || {_part('told')} END"
    )
},
       amount, CASE WHEN refunded THEN made_at + interval '1 day' ELSE made_at END, made_at, at + interval '2 seconds',
       at + interval '2 seconds', 1 + refunded::integer + disputed::integer,
       CASE WHEN refunded THEN 50 ELSE CASE first_status WHEN 'pending' THEN 10 WHEN 'authorised' THEN 20 WHEN 'failed' THEN 30
            WHEN 'expired' THEN 31 WHEN 'cancelled' THEN 32 WHEN 'succeeded' THEN 41 ELSE 45 END END,
       FALSE, FALSE, FALSE, FALSE,
       CASE WHEN first_status IN ('succeeded', 'settled') THEN amount ELSE 0 END - CASE WHEN refunded THEN amount / 2 ELSE 0 END,
       CASE WHEN refunded THEN 'partially_refunded' ELSE first_status END, CASE WHEN disputed THEN 'dispute' END,
       asset, scheme, provider, type, reference, {{payment_id}}
  FROM (SELECT b.*, b.reference || '-r' AS own, {_INSTANT.format("made_at")} AS told_at, b.amount::text AS told
          FROM ({_BASE}) b OFFSET 0) AS spelled
"""

_LETTERS = f"""
INSERT INTO dead_letters (id, stage, reason, message, hint, attempts, failed_at, event_id, run_id, connector_id, connector, topic,
                          log_partition, log_offset, path, position, line, source_object, key, value, headers, size_bytes,
                          sha256, truncated, sqlstate, letter_partition, letter_offset, content, redrive_attempts,
                          redrive_run_id, redriven_at, discarded_at, discarded_by, discard_note)
SELECT id, stage, reason, message, hint, attempts, failed_at, event_id, run_id, connector_id, connector, topic, log_partition,
       log_offset, path, position, line, source_object, key, value, headers, size_bytes, sha256, truncated, sqlstate,
       letter_partition, letter_offset, {{letter_content}}, (h < 30)::integer, CASE WHEN h < 30 THEN run_id END,
       CASE WHEN h < 25 THEN failed_at + interval '1 hour' END, CASE WHEN h >= 85 THEN failed_at + interval '2 hours' END,
       CASE WHEN h >= 85 THEN 'ops' END, CASE WHEN h >= 85 THEN 'a test file' END
  FROM (SELECT left(encode(sha256(convert_to(
                   CASE stage WHEN 'source' THEN concat_ws(E'\\n', stage, connector_id, source_object, position)
                        ELSE concat_ws(E'\\n', stage, topic, log_partition, log_offset, encode(sha256(value), 'hex'),
                                       encode(sha256(key), 'hex')) END, 'UTF8')), 'hex'), 32) AS id,
               encode(substr(sha256(convert_to({_part("connector_id::text")} || {_part("source_object")} || {_part("position")}, 'UTF8')),
                             1, 16), 'hex') AS event_id,
               length(value)::bigint AS size_bytes, encode(sha256(value), 'hex') AS sha256, *
          FROM (SELECT l, (hashint4(l) & 2147483647) % 100 AS h, f.run AS run_id, f.connector_id, f.connector,
                       CASE WHEN l % 10 = 0 THEN 'sink' ELSE 'source' END AS stage,
                       (ARRAY[:reasons])[1 + (f.n * 7 + (hashint4(l) & 2147483647) % 6) % :reason_count] AS reason,
                       'row ' || l || ': the amount "1.2.3" is no number' AS message,
                       'correct the file, and send it again' AS hint, 1 AS attempts,
                       f.at + l % 60 * interval '1 second' AS failed_at,
                       CASE WHEN l % 10 = 0 THEN ':topic' ELSE '' END AS topic, CASE WHEN l % 10 = 0 THEN l / 10 % 4 END AS log_partition,
                       CASE WHEN l % 10 = 0 THEN l::bigint END AS log_offset,
                       f.path, 'bad ' || l AS position, l AS line, f.sha AS source_object,
                       CASE WHEN l % 10 = 0 THEN convert_to(f.provider || '/' || l, 'UTF8') END AS key,
                       convert_to(repeat('pay_' || l || ',payin,succeeded,1.2.3,EUR/2,visa;', 6), 'UTF8') AS value,
                       '[]'::json AS headers, FALSE AS truncated, '' AS sqlstate, 0 AS letter_partition, l::bigint AS letter_offset
                  FROM generate_series(1, :letters) l
                  JOIN bench.failing f ON f.k = 1 + l::bigint * 7919 % (SELECT count(*) FROM bench.failing)) AS drawn) AS told
"""

_DEATHS = f"""
INSERT INTO event_deaths (digest, run, first_seen_at, log_offset, log_partition, topic, event_id, letter_id, reason, content)
SELECT {_digest("event_id")}, run_id, failed_at, log_offset, log_partition, topic, event_id, id, reason, {_digest("event_id")}
  FROM dead_letters WHERE stage = 'sink'
"""

_LEDGER = """
INSERT INTO run_ledger (run, log_partition, topic, outcome, events, digest_sum)
SELECT run, log_partition, topic, outcome, events, {digest_sum}
  FROM (SELECT run, log_partition, topic, outcome, count(*) AS events, sum(high) AS high, sum(low) AS low,
               count(*) FILTER (WHERE low < 0) AS negative
          FROM (SELECT run, log_partition, topic, outcome, {halves}
                  FROM (SELECT e.run, o.log_partition, o.topic, 'applied' AS outcome, e.digest
                          FROM payment_events e JOIN event_origins o ON o.id = e.origin
                        UNION ALL
                        SELECT run, log_partition, topic, 'dead', digest FROM event_deaths) AS fates) AS halved
         GROUP BY run, log_partition, topic, outcome) AS summed
"""

_CONNECTOR_RUNS = """
INSERT INTO connector_runs (id, row_id, connector_id, read, published, rejected, published_sum, rejected_sum, started_at, heartbeat_at,
                            reading_finished_at, closed_at, reason, run_type, status, archived)
SELECT r.id, r.r, c.id, coalesce(l.events, 0) + coalesce(d.letters, 0), coalesce(l.events, 0), coalesce(d.letters, 0),
       coalesce(l.digest_sum, 0), coalesce(d.digest_sum, 0), r.at, r.at + interval '20 seconds',
       CASE WHEN r.type <> 'TEST' AND r.status <> 'RUNNING' THEN r.at + interval '20 seconds' END,
       CASE WHEN r.status <> 'RUNNING' THEN r.at + interval '25 seconds' END,
       CASE r.status WHEN 'FAILED' THEN 'the source does not answer: connection refused'
            WHEN 'PARTIAL_SUCCESS' THEN 'one file could not be used' END, r.type, r.status,
       CASE WHEN r.n > :connectors THEN jsonb_build_object('status', r.status, 'run_type', r.type, 'triggered_by', 'SCHEDULER') END
  FROM bench.runs r
  JOIN bench.connectors c ON c.n = r.n
  LEFT JOIN (SELECT run, sum(events)::bigint AS events, mod(sum(digest_sum), 340282366920938463463374607431768211456) AS digest_sum
               FROM run_ledger GROUP BY run) l ON l.run = r.id
  LEFT JOIN (SELECT run, letters, {digest_sum} AS digest_sum
               FROM (SELECT run, count(*) AS letters, sum(high) AS high, sum(low) AS low, count(*) FILTER (WHERE low < 0) AS negative
                       FROM (SELECT run_id AS run, {halves}
                               FROM (SELECT run_id, {letter_digest} AS digest FROM dead_letters WHERE stage = 'source') AS each
                            ) AS halved
                      GROUP BY run) AS summed) d ON d.run = r.id
"""

_SEED_RUNS = """
INSERT INTO sp_v2_connector_runs (id, connector_id, run_type, run_date, status, records_processed, records_success, records_failed,
                                  duration_seconds, error_message, details, started_at, completed_at, triggered_by)
SELECT r.r, r.n, r.type, r.at::date, r.status, o.read, o.published, o.rejected,
       CASE WHEN o.closed_at IS NOT NULL THEN 25.0 END, o.reason,
       CASE WHEN o.closed_at IS NOT NULL THEN jsonb_build_object('run', r.id, 'read', o.read, 'published', o.published) END,
       r.at, o.closed_at, CASE WHEN r.type = 'SCHEDULED' THEN 'SCHEDULER' ELSE 'operator@example.com' END
  FROM bench.runs r JOIN connector_runs o ON o.id = r.id
 WHERE r.n <= :connectors
"""

_REQUESTS = """
INSERT INTO run_requests (run, connector_id, first_day, last_day, force, requested_by, requested_at, epoch, worker, taken_at, ended_at)
SELECT r.id, c.id, CASE WHEN r.type = 'BACKFILL' THEN r.at::date - 7 END, CASE WHEN r.type = 'BACKFILL' THEN r.at::date END,
       FALSE, 'operator@example.com', r.at, 1, 'worker-1', r.at, CASE WHEN r.status <> 'RUNNING' THEN r.at END
  FROM bench.runs r JOIN bench.connectors c ON c.n = r.n
 WHERE r.type IN ('MANUAL', 'BACKFILL')
"""

_INGESTED = """
INSERT INTO recon_ingested_file (connector_id, run, task, provider, cycle_date, filename, path, sha256, size_bytes, state, dedupe_key,
                                 records, rejected, error, discovered_at, downloaded_at, normalized_at, updated_at)
SELECT connector_id, run, sha, provider, at::date, filename, path, sha, 20480 + f % 4096,
       CASE WHEN status = 'RUNNING' THEN 'DISCOVERED' WHEN f % 400 = 1 THEN 'ERROR' WHEN f % 400 = 2 THEN 'DOWNLOADED' ELSE 'NORMALIZED' END,
       provider || '|' || at::date || '|' || sha, 25, 0, CASE WHEN f % 400 = 1 THEN 'none of its records could be used' ELSE '' END,
       at, at, CASE WHEN status <> 'RUNNING' AND f % 400 NOT IN (1, 2) THEN at END, at
  FROM bench.files ORDER BY f
"""

_CHECKPOINTS = """
INSERT INTO checkpoints (connector_id, task, descriptor, path, run_id, epoch, seq, cursor, counts, done, revision_at, updated_at)
SELECT connector_id, sha, filename, path, run, 1, f, json_build_object('path', path, 'offset', 20480, 'row', 25, 'sha256', sha),
       json_build_object('read', 25, 'published', 25, 'rejected', 0, 'filtered', 0, 'skipped', 0, 'published_sum', 0, 'rejected_sum', 0),
       status <> 'RUNNING', at, at
  FROM bench.files
"""

_SEED_CONNECTORS = """
INSERT INTO sp_v2_connectors (id, name, connector_type, source_entity, status, connection_config, schedule_enabled, schedule_cron,
                              last_run_at, last_run_status, last_run_details, success_count, failure_count, total_runs,
                              created_at, updated_at)
SELECT c.n, c.name, c.type, upper(c.provider), c.status, c.config, c.cron IS NOT NULL, c.cron, l.at, l.status,
       CASE WHEN l.at IS NOT NULL THEN jsonb_build_object('read', 50, 'published', 50) END,
       coalesce(r.good, 0), coalesce(r.bad, 0), coalesce(r.total, 0), now() - interval '1 year', now() - interval '1 day'
  FROM bench.connectors c
  LEFT JOIN (SELECT n, count(*) AS total, count(*) FILTER (WHERE status = 'SUCCESS') AS good,
                    count(*) FILTER (WHERE status = 'FAILED') AS bad, max(r) FILTER (WHERE status <> 'RUNNING') AS newest
               FROM bench.runs GROUP BY n) r USING (n)
  LEFT JOIN bench.runs l ON l.r = r.newest
 WHERE c.n > 1
"""

_CONNECTORS = """
INSERT INTO connectors (id, row_id, name, kind, provider, provider_frozen_at, configuration_version, revision, created_at, deleted_at,
                        archived, pause_note, paused_by)
SELECT c.id, c.n, c.name, c.kind, c.provider, now() - interval '1 year', c.versions, c.versions + 3, now() - interval '1 year',
       CASE WHEN c.n > :connectors THEN now() - interval '1 day' END,
       CASE WHEN c.n > :connectors THEN to_jsonb(s) END, CASE WHEN c.status = 'PAUSED' THEN 'their server moves' ELSE '' END,
       CASE WHEN c.status = 'PAUSED' THEN 'ops' ELSE '' END
  FROM bench.connectors c JOIN sp_v2_connectors s ON s.id = c.n
 WHERE c.n > 1
"""

_SIDES = (
    "DELETE FROM sp_v2_connectors WHERE id > :connectors",
    """INSERT INTO connector_versions (connector_id, version, kind, provider, configuration, made_at, made_by)
SELECT c.id, v, c.kind, c.provider, c.config || jsonb_build_object('poll_s', 10 + v % 50), now() - interval '1 year' + v * interval '1 hour', 'ops'
  FROM bench.connectors c, generate_series(1, c.versions) v WHERE c.n > 1""",
    """INSERT INTO connector_verdicts (connector_id, state, cause, since, checked_at)
SELECT id, CASE WHEN status = 'PAUSED' THEN 'paused' WHEN n % 29 = 0 THEN 'down' WHEN n % 13 = 0 THEN 'degraded' ELSE 'healthy' END,
       CASE WHEN n % 29 = 0 THEN 'its source does not answer: connection refused' ELSE '' END, now() - interval '1 hour', now()
  FROM bench.connectors WHERE n <= :connectors""",
    """INSERT INTO connector_claims (connector_id, epoch, worker) SELECT id, 1, 'worker-' || n % 3 FROM bench.connectors
 WHERE n BETWEEN 2 AND :connectors""",
    """INSERT INTO connector_reports (connector_id, epoch, worker, state, problem, hint, listed_at, runs_open, pending, active, left_behind,
                               skipped, tasks, progress)
SELECT id, 1, 'worker-' || n % 3, CASE WHEN n % 29 = 0 THEN 'backing_off' ELSE 'running' END, '', '', now(), 0, n % 3, 0, 0,
       '{"outside the days": 12}',
       (SELECT json_agg(json_build_object('descriptor', 'live-' || t, 'status', 'active', 'error', '', 'created_at', now(),
                                          'state', json_build_object('path', '/srv/partners/' || provider || '/live-' || t, 'row', t)))
          FROM generate_series(1, CASE WHEN n = 2 THEN 100 ELSE 10 END) t),
       '[]'
  FROM bench.connectors WHERE n BETWEEN 2 AND :connectors""",
    """INSERT INTO letter_repeats (letter, run, letter_partition, letter_offset)
SELECT l.id, r.id, 0, :letters + l.letter_offset
  FROM dead_letters l JOIN bench.runs r ON r.r = 1 + l.letter_offset % 40 AND r.type = 'TEST'
 WHERE l.stage = 'sink' AND l.letter_offset % 50 = 0""",
    """INSERT INTO activity (transaction, at, kind, connector_id, run, actor, facts)
SELECT ((10 + a::bigint * 500 / :activity)::text)::xid8, r.at + a % 5 * interval '5 seconds',
       (ARRAY['run.opened', 'run.asked', 'run.taken', 'run.read', 'run.ended'])[1 + a % 5], c.id, r.id, '',
       jsonb_build_object('number', r.r, 'type', r.type, 'status', r.status, 'read', 50, 'published', 50)
  FROM generate_series(0, :activity - 1) a
  JOIN bench.runs r ON r.r = 1 + a::bigint * :runs / :activity
  JOIN bench.connectors c ON c.n = r.n
 ORDER BY a""",
    """INSERT INTO cursor_edits (id, connector_id, task, descriptor, action, before, after, was_done, epoch, seq, follows, note, requested_by,
                          status, reason, ended_at)
SELECT md5('edit ' || f)::uuid, connector_id, sha, filename, 'set', '{"row": 25}', '{"row": 1}', TRUE, 1, f, '[]', 'read again', 'ops',
       'refused', 'the connector is not paused', at
  FROM bench.files WHERE f % 100 = 0""",
    """INSERT INTO replays (id, apply, requested_by, started_at, heartbeat_at, ended_at, status, report)
SELECT md5('replay ' || r)::uuid, FALSE, 'ops', now() - r * interval '1 hour', now() - r * interval '1 hour', now() - r * interval '1 hour',
       'equal', '{"events": 1000, "differs": []}'
  FROM generate_series(1, 500) r""",
    """INSERT INTO idempotency_keys (key, request, reserved, status, body)
SELECT 'key ' || k, sha256(k::text::bytea), md5('key ' || k)::uuid, 201, repeat('x', 300) FROM generate_series(1, 10000) k""",
    "SELECT setval('sp_v2_connectors_id_seq', :connectors + :deleted), setval('sp_v2_connector_runs_id_seq', :runs)",
)


@dataclass(frozen=True, slots=True)
class Filled:
    """What it took."""

    seconds: float
    gib: float


async def fill(dsn: str, size: Size, *, topic: str) -> Filled:
    """Fill a migrated, empty database."""
    began = time.monotonic()
    first, second = [await _connect(dsn) for _ in range(2)]
    try:
        await first.execute("CREATE SCHEMA bench")
        await _connectors(first, size)
        sql = _Sql(size, topic)
        for statement in (_RUNS, _FILES, _FAILING_FILES):
            await first.execute(sql(statement))
        await first.execute("ANALYZE bench.connectors, bench.runs, bench.files, bench.failing")
        await asyncio.gather(
            _whole(first, "payment_events", sql(_EVENTS)),
            _payments(second, sql),
        )
        await first.execute("ANALYZE payment_events")
        async with _without_indexes(
            first, "connector_runs", "sp_v2_connector_runs", "run_ledger", "checkpoints", "activity"
        ):
            for statement in (
                _LEDGER,
                _SEED_CONNECTORS,
                _CONNECTORS,
                _CONNECTOR_RUNS,
                _SEED_RUNS,
                _REQUESTS,
                _INGESTED,
            ):
                await first.execute(sql(statement))
            for statement in (_CHECKPOINTS, *_SIDES):
                await first.execute(sql(statement))
        await first.execute("DROP SCHEMA bench CASCADE")
        await asyncio.gather(
            first.execute("VACUUM (ANALYZE, FREEZE) payment_events"),
            second.execute("VACUUM (ANALYZE, FREEZE) payments"),
        )
        await first.execute("VACUUM (ANALYZE)")
        await first.execute("CHECKPOINT")
        size_bytes = await first.fetchval("SELECT pg_database_size(current_database())")
    finally:
        for held in (first, second):
            await held.close()
    return Filled(time.monotonic() - began, size_bytes / 2**30)


class _Sql:
    """Statements with the numbers and the sink's own blocks in them."""

    def __init__(self, size: Size, topic: str) -> None:
        blocks = statements()
        self._blocks = {
            name: blocks[name] for name in ("digest_sum", "halves", "letter_digest", "letter_content", "payment_id")
        }
        reasons = ", ".join(f"'{each}'" for each in REASONS)
        self._values = {
            "reason_count": len(REASONS), "reasons": reasons, "topic": topic, "failing": _FAILING, "deleted": _DELETED, "idle": _IDLE,
            **{name: getattr(size, name) for name in Size.__slots__},
        }  # fmt: skip

    def __call__(self, text: str) -> str:
        for name, block in self._blocks.items():
            text = text.replace(f"{{{name}}}", block)
        for name, value in sorted(self._values.items(), key=lambda each: -len(each[0])):
            text = text.replace(f":{name}", str(value))
        return text


# asyncpg ships no types
async def _connect(dsn: str) -> Any:
    return await asyncpg.connect(
        dsn,
        command_timeout=900,
        server_settings={
            "session_replication_role": "replica",  # triggers would write a row of activity for each row of a year
            "synchronous_commit": "off",
            "maintenance_work_mem": "1GB",
            "work_mem": "512MB",
            "jit": "off",
            "timezone": "UTC",
        },
    )


async def _connectors(held: Any, size: Size) -> None:
    await held.execute(
        "CREATE TABLE bench.connectors (n integer, id uuid, name text, kind text, type text, provider text, config jsonb, status text,"
        " cron text, versions integer)"
    )
    default = await held.fetchrow(
        "SELECT c.id, s.name, c.kind, s.source_entity FROM connectors c JOIN sp_v2_connectors s ON s.id = c.row_id"
    )
    rows: list[tuple[object, ...]] = [
        (
            1,
            default["id"],
            default["name"],
            default["kind"],
            "PG_API",
            default["source_entity"],
            "{}",
            "ACTIVE",
            None,
            1,
        )
    ]
    for n in range(2, size.connectors + _DELETED + 1):
        kind = KINDS[n % len(KINDS)]
        name, provider = f"Partner {n:04d} {kind}", f"partner-{n:04d}"
        status, cron = "PAUSED" if n % 20 == 5 else "ACTIVE", None if n % 2 else "0 2 * * *"
        versions = 300 if n == 2 else 1 + n % 4
        config = json.dumps(dict(specs()[kind].example))
        rows.append((n, UUID(int=2**64 + n), name, kind, TYPES[kind], provider, config, status, cron, versions))
    await held.copy_records_to_table("connectors", schema_name="bench", records=rows)


async def _payments(held: Any, sql: _Sql) -> None:
    """What the other connection has time for."""
    await _whole(held, "payments", sql(_PAYMENTS))
    async with _without_indexes(held, "event_origins"):
        await held.execute(sql(_ORIGINS))
    await held.execute("ANALYZE event_origins")
    await held.execute(sql(_LETTERS))
    await held.execute(sql(_DEATHS))


async def _whole(held: Any, table: str, statement: str) -> None:
    """Fill a table in the transaction that empties it, so that nothing is logged (`wal_level=minimal`)."""
    async with held.transaction():
        await held.execute(f"TRUNCATE {table}")
        async with _without_indexes(held, table):
            await held.execute(statement)


@contextlib.asynccontextmanager
async def _without_indexes(held: Any, *tables: str) -> AsyncIterator[None]:
    """Nobody looks anything up meanwhile: made afterwards an index takes a fraction of the time."""
    made: list[str] = []
    for table in tables:
        rows = await held.fetch(
            "SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS made, c.conname AS bound,"
            " pg_get_constraintdef(c.oid) AS held FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')"
            " AND c.conrelid = i.indrelid WHERE i.indrelid = $1::regclass",
            table,
        )
        if await held.fetchval("SELECT count(*) FROM pg_constraint WHERE confrelid = $1::regclass", table):
            rows = [row for row in rows if row["bound"] is None]  # other tables refer to it
        for row in rows:
            if row["bound"] is None:
                await held.execute(f"DROP INDEX {row['name']}")
                made.append(row["made"])
            else:
                await held.execute(f"ALTER TABLE {table} DROP CONSTRAINT {row['bound']}")
                made.append(f"ALTER TABLE {table} ADD CONSTRAINT {row['bound']} {row['held']}")
    yield
    for statement in made:
        await held.execute(statement)
