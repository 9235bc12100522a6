-- Statements of the control plane. Tables: sinks/migrations. Digest sums are modulo 2^128.

-- name: create_connector
-- Seed 003's row and the connector for ever, or neither. Returns nothing where the name is taken.
WITH seed AS (
    INSERT INTO sp_v2_connectors (name, connector_type, source_entity, status, connection_config, schedule_enabled, schedule_cron,
                                  schedule_timezone)
    VALUES ($2, $3, $4, 'ACTIVE', $6, $8, $9, $10)
        ON CONFLICT (name) DO NOTHING
    RETURNING id, name, created_at
)
INSERT INTO connectors (id, row_id, name, kind, provider, created_at)
SELECT $1, seed.id, seed.name, $5, $7, seed.created_at FROM seed
RETURNING id;


-- name: taken_names
SELECT name FROM connectors UNION SELECT provider FROM connectors UNION SELECT name FROM sp_v2_connectors;

-- name: set_connector_status
-- `$2` status, `$3` note, `$4` who. Activating one that was paused, by itself or by somebody, or that fails, starts it anew.
WITH side AS (
    UPDATE connectors c
       SET revision = c.revision + 1, pause_note = CASE WHEN $2 = 'ACTIVE' THEN '' ELSE $3::text END,
           paused_by = CASE WHEN $2 = 'ACTIVE' THEN '' ELSE $4::text END, paused_at = CASE WHEN $2 = 'ACTIVE' THEN NULL ELSE now() END,
           resumed_at = CASE WHEN $2 = 'ACTIVE'
                              AND (EXISTS (SELECT FROM connector_reports r WHERE r.connector_id = c.id AND r.state = 'paused')
                                   OR EXISTS (SELECT FROM sp_v2_connectors s WHERE s.id = c.row_id AND s.status = 'PAUSED')
                                   OR {connector_failed})
                             THEN now() ELSE c.resumed_at END
     WHERE c.id = $1 AND c.deleted_at IS NULL
    RETURNING c.row_id
)
UPDATE sp_v2_connectors s SET status = $2, updated_at = now()
  FROM side WHERE s.id = side.row_id
RETURNING s.name;

-- name: configure_connector
-- A new configuration, and a new provider unless it is frozen: then nothing changes and nothing returns.
WITH side AS (
    UPDATE connectors SET provider = $3, configuration_version = configuration_version + 1, revision = revision + 1
     WHERE id = $1 AND deleted_at IS NULL AND (provider = $3 OR provider_frozen_at IS NULL)
    RETURNING row_id
)
UPDATE sp_v2_connectors s SET connection_config = $2, updated_at = now()
  FROM side WHERE s.id = side.row_id
RETURNING s.name;

-- name: delete_connector
-- Its name is free again at once. What seed 003's rows held is kept beside by a trigger; runs, letters and payments stay.
-- Returns nothing where it was deleted before.
DELETE FROM sp_v2_connectors s USING connectors c
 WHERE s.id = c.row_id AND c.id = $1 AND c.deleted_at IS NULL
RETURNING s.id;

-- name: lock_connector
-- What is changed of it waits until the transaction ends.
SELECT id, revision FROM connectors WHERE id = $1 AND deleted_at IS NULL FOR UPDATE;

-- name: lock_open_runs
-- Their workers' next word waits: they take a run's row before seed 003's.
SELECT id FROM connector_runs WHERE connector_id = $1 AND closed_at IS NULL ORDER BY id FOR UPDATE;

-- name: claim_connector
-- Take the connector for this worker. Whatever an older epoch still writes is refused.
INSERT INTO connector_claims AS c (connector_id, epoch, worker)
VALUES ($1, $2::bigint + 1, $3)
    ON CONFLICT (connector_id) DO UPDATE
   SET epoch = greatest(c.epoch, $2) + 1, worker = excluded.worker, claimed_at = now(), heartbeat_at = now(),
       released_at = NULL
RETURNING epoch;

-- name: hold_claim
-- The connector's epoch, which nobody raises before the transaction ends.
SELECT epoch FROM connector_claims WHERE connector_id = $1 FOR SHARE;

-- name: renew_claims
-- Those of the claims `$1` (connectors), `$2` (epochs) that hold still.
UPDATE connector_claims c SET heartbeat_at = now()
  FROM unnest($1::uuid[], $2::bigint[]) AS mine (connector_id, epoch)
 WHERE c.connector_id = mine.connector_id AND c.epoch = mine.epoch
RETURNING c.connector_id, c.epoch;

-- name: blame_connector
-- Its source blocked the event loop of the worker that holds its claim.
UPDATE connector_claims k
   SET blocked_at = now(), blocked_version = c.configuration_version,
       blocked_times = CASE WHEN k.blocked_version = c.configuration_version THEN k.blocked_times + 1 ELSE 1 END
  FROM connectors c
 WHERE c.id = k.connector_id AND k.connector_id = $1 AND k.epoch = $2;

-- name: report_connector
-- How it fares, as the worker of the newest epoch says; `$1` connector, `$2` epoch or null: none was claimed. `$13` tasks, or null:
-- as before. An outdated worker's word is not taken.
INSERT INTO connector_reports AS r (connector_id, epoch, worker, state, problem, hint, listed_at, runs_open, pending, active,
                                    left_behind, skipped, tasks, progress)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, coalesce($13::json, '[]'), $14
 WHERE NOT EXISTS (SELECT FROM connector_claims WHERE connector_id = $1 AND epoch > $2)
    ON CONFLICT (connector_id) DO UPDATE
   SET epoch = excluded.epoch, worker = excluded.worker, state = excluded.state, problem = excluded.problem,
       hint = excluded.hint, listed_at = excluded.listed_at, runs_open = excluded.runs_open, pending = excluded.pending,
       active = excluded.active, left_behind = excluded.left_behind, skipped = excluded.skipped,
       tasks = CASE WHEN $13::json IS NULL THEN r.tasks ELSE excluded.tasks END, progress = excluded.progress,
       reported_at = now();

-- name: reported_tasks
SELECT tasks, progress, reported_at, now() AS now FROM connector_reports WHERE connector_id = $1;

-- name: known_tasks
-- Tasks of earlier lives, the newest first, from the mirror of the state table.
SELECT task, descriptor, cursor, counts, done, revision_at FROM checkpoints
 WHERE connector_id = $1 AND NOT (descriptor = ANY ($2::text[]))
 ORDER BY updated_at DESC, task
 LIMIT $3;

-- name: desired_connectors
-- What should run now, or is paused, and in which version of its configuration; and until when a source that blocked a worker waits: a minute,
-- then twice as long each time, at most an hour. A new configuration ends the wait.
SELECT c.id, s.name, c.kind, c.provider, c.configuration_version, c.resumed_at, s.connection_config, k.blocked_at,
       s.schedule_cron IS NULL AS polls, s.status = 'PAUSED' AS is_paused,
       k.blocked_at + least(60 * 2 ^ (k.blocked_times - 1), 3600) * interval '1 second' AS blocked_until,
       now() < k.blocked_at + least(60 * 2 ^ (k.blocked_times - 1), 3600) * interval '1 second' AS blocked
  FROM connectors c
  JOIN sp_v2_connectors s ON s.id = c.row_id
  LEFT JOIN connector_claims k ON k.connector_id = c.id AND k.blocked_version = c.configuration_version
 WHERE c.deleted_at IS NULL AND s.status IN ('ACTIVE', 'PAUSED')
 ORDER BY c.id;

-- name: request_run
-- A run with its row, for a worker to take. Returns nothing where the connector is not active.
WITH owner AS (
    SELECT c.id, c.row_id
      FROM connectors c
      JOIN sp_v2_connectors s ON s.id = c.row_id
     WHERE c.id = $2 AND c.deleted_at IS NULL AND s.status = 'ACTIVE'
), seed AS (
    INSERT INTO sp_v2_connector_runs (connector_id, run_type, run_date, status, triggered_by)
    SELECT row_id, $3, coalesce($5::date, current_date), 'RUNNING', left($4, 100) FROM owner
    RETURNING id, started_at
), run AS (
    INSERT INTO connector_runs (id, row_id, connector_id, run_type, started_at)
    SELECT $1, seed.id, owner.id, $3, seed.started_at FROM seed, owner
    RETURNING id, connector_id
)
INSERT INTO run_requests (run, connector_id, requested_by, first_day, last_day, force)
SELECT id, connector_id, $4, $5, $6, $7 FROM run
RETURNING run;

-- name: open_requests
-- Of these connectors, in the order in which they were made.
SELECT q.run, q.connector_id, q.first_day, q.last_day, q.force, q.requested_by, q.epoch, r.cancelled_at IS NOT NULL AS cancelled,
       r.run_type
  FROM run_requests q
  JOIN connector_runs r ON r.id = q.run
 WHERE q.ended_at IS NULL AND q.connector_id = ANY ($1::uuid[])
 ORDER BY q.requested_at, q.run;

-- name: take_request
-- Serve the request `$1` under the claim of epoch `$2`. Returns nothing where somebody newer does, or it has ended.
WITH run AS (
    UPDATE connector_runs r SET heartbeat_at = now()
      FROM run_requests q
     WHERE r.id = $1 AND q.run = $1 AND q.ended_at IS NULL AND r.closed_at IS NULL AND r.cancelled_at IS NULL AND (q.epoch IS NULL OR q.epoch <= $2)
       AND EXISTS (SELECT FROM connector_claims k WHERE k.connector_id = q.connector_id AND k.epoch = $2)
    RETURNING r.id
)
UPDATE run_requests q SET epoch = $2, worker = $3, taken_at = coalesce(taken_at, now())
  FROM run WHERE q.run = run.id AND q.ended_at IS NULL AND (q.epoch IS NULL OR q.epoch <= $2)
RETURNING q.run;

-- name: cancel_run
-- `$2` who. Returns nothing where it is read to its end, has ended, or was cancelled before.
UPDATE connector_runs SET cancelled_at = now(), cancelled_by = $2
 WHERE id = $1 AND closed_at IS NULL AND reading_finished_at IS NULL AND cancelled_at IS NULL
RETURNING id;

-- name: find_request
-- Whether a worker serves the run's request. A statement of its own, after `cancel_run`: what a statement reads beside the row that
-- it waited for is as old as the statement.
SELECT epoch IS NOT NULL AS taken FROM run_requests WHERE run = $1;

-- name: cancelled_runs
-- Of these connectors: what still reads, nobody asked for, and somebody cancelled.
SELECT r.id, r.connector_id FROM connector_runs r
 WHERE r.closed_at IS NULL AND r.reading_finished_at IS NULL AND r.cancelled_at IS NOT NULL AND r.connector_id = ANY ($1::uuid[])
   AND r.run_type <> 'TEST' AND NOT EXISTS (SELECT FROM run_requests q WHERE q.run = r.id);

-- name: open_run
-- Idempotent. Opening a run freezes the provider: the next thing that happens is a publish. An outdated worker may open one too:
-- what it published under it is on record, and the monitor ends it. A run of a connector that is deleted has no row of seed 003.
WITH owner AS (
    UPDATE connectors SET provider_frozen_at = coalesce(provider_frozen_at, now()) WHERE id = $2
    RETURNING CASE WHEN deleted_at IS NULL THEN row_id END AS row_id
), seed AS (
    INSERT INTO sp_v2_connector_runs (connector_id, run_type, run_date, status, triggered_by)
    SELECT row_id, $4, current_date, 'RUNNING', left($3, 100) FROM owner
     WHERE row_id IS NOT NULL AND NOT EXISTS (SELECT FROM connector_runs WHERE id = $1)
    RETURNING id, started_at
)
INSERT INTO connector_runs (id, row_id, connector_id, run_type, started_at, archived)
SELECT $1, coalesce(seed.id, nextval('sp_v2_connector_runs_id_seq')), $2, $4, coalesce(seed.started_at, now()),
       CASE WHEN seed.id IS NULL THEN jsonb_build_object('run_type', $4::text, 'run_date', current_date, 'status', 'RUNNING',
                                                         'triggered_by', left($3, 100), 'started_at', now()) END
  FROM owner LEFT JOIN seed ON TRUE
 WHERE NOT EXISTS (SELECT FROM connector_runs WHERE id = $1)
    ON CONFLICT (id) DO NOTHING;

-- name: open_manual_run
-- A run that no worker owns, such as a redrive. Its connector may be one without a row of seed 003.
WITH seed AS (
    INSERT INTO sp_v2_connector_runs (connector_id, run_type, run_date, status, triggered_by)
    SELECT CASE WHEN deleted_at IS NULL THEN row_id END, 'MANUAL', current_date, 'RUNNING', left($3, 100) FROM connectors WHERE id = $2
    RETURNING id, started_at
)
INSERT INTO connector_runs (id, row_id, connector_id, run_type, started_at)
SELECT $1, id, $2, 'MANUAL', started_at FROM seed;

-- name: record_progress
-- What was read so far; also the heartbeat. A run that is through changes no more.
WITH side AS (
    UPDATE connector_runs
       SET read = $2, published = $3, rejected = $4, filtered = $5, skipped = $6, published_sum = $7, rejected_sum = $8,
           heartbeat_at = now()
     WHERE id = $1 AND closed_at IS NULL AND reading_finished_at IS NULL
    RETURNING row_id, read, rejected
)
UPDATE sp_v2_connector_runs r
   SET records_processed = least(side.read, 2147483647),
       records_success = least(side.read - side.rejected, 2147483647),
       records_failed = least(side.rejected, 2147483647)
  FROM side WHERE r.id = side.row_id;

-- name: finish_reading
-- The source side is through; `$2` are problems, or null, `$3` a note. The first of this and `close_run` holds.
WITH asked AS (
    UPDATE run_requests SET ended_at = now() WHERE run = $1 AND ended_at IS NULL
)
UPDATE connector_runs SET reading_finished_at = now(), heartbeat_at = now(), reason = $2, note = $3
 WHERE id = $1 AND closed_at IS NULL AND reading_finished_at IS NULL
RETURNING id;

-- name: close_run
-- End a run, once: its row of seed 003 and the connector's counters change with it. `$4`: only while it still reads.
-- Returns the connector's name, or nothing where the run had ended.
WITH dead AS (
    SELECT coalesce(sum(events), 0)::bigint AS events FROM run_ledger WHERE run = $1 AND outcome = 'dead'
), closed AS (
    UPDATE connector_runs r
       SET closed_at = now(), reason = coalesce($3, r.reason), status = $2::text,
           archived = r.archived || jsonb_build_object('status', $2::text, 'completed_at', now(), 'error_message', coalesce($3, r.reason))
     WHERE r.id = $1 AND r.closed_at IS NULL AND (NOT $4 OR r.reading_finished_at IS NULL)
    RETURNING r.connector_id, r.row_id, r.read, r.rejected + (SELECT events FROM dead) AS failed, r.reason,
              jsonb_build_object('run', r.id, 'read', r.read, 'published', r.published, 'rejected', r.rejected,
                                 'filtered', r.filtered, 'skipped', r.skipped, 'note', r.note, 'dead', (SELECT events FROM dead),
                                 'reason', coalesce($3, r.reason)) AS details
), asked AS (
    UPDATE run_requests q SET ended_at = now() FROM closed WHERE q.run = $1 AND q.ended_at IS NULL
), seed AS (
    UPDATE sp_v2_connector_runs s
       SET status = $2::text, completed_at = now(), error_message = closed.reason, details = closed.details,
           duration_seconds = least(extract(epoch FROM now() - s.started_at), 99999999),
           records_processed = least(closed.read, 2147483647),
           records_success = least(greatest(closed.read - closed.failed, 0), 2147483647),
           records_failed = least(closed.failed, 2147483647)
      FROM closed WHERE s.id = closed.row_id
    RETURNING s.connector_id, s.completed_at, s.details
), counted AS (
    UPDATE sp_v2_connectors c
       SET last_run_at = seed.completed_at, last_run_status = $2::text, last_run_details = seed.details,
           total_runs = total_runs + 1,
           success_count = success_count + ($2 = 'SUCCESS')::integer,
           failure_count = failure_count + ($2 = 'FAILED')::integer
      FROM seed WHERE c.id = seed.connector_id
)
SELECT c.name FROM closed JOIN connectors c ON c.id = closed.connector_id;

-- name: open_runs
-- Every run that has not ended, the oldest first, with what the sink has counted for it and who owns its connector now.
SELECT r.id, r.connector_id, c.name AS connector, r.run_type, r.read, r.published, r.rejected, r.filtered, r.published_sum,
        r.rejected_sum, r.started_at, r.heartbeat_at, r.reading_finished_at, r.reason,
       k.claimed_at, k.worker, now() AS now,
       q.run IS NOT NULL AND q.ended_at IS NULL AS asked, r.cancelled_at IS NOT NULL AS cancelled,
       coalesce(l.applied, 0)::bigint AS applied, coalesce(l.duplicate, 0)::bigint AS duplicate,
       coalesce(l.dead, 0)::bigint AS dead, coalesce(l.digests, 0) AS sink_sum
  FROM connector_runs r
  JOIN connectors c ON c.id = r.connector_id
  LEFT JOIN connector_claims k ON k.connector_id = r.connector_id
  LEFT JOIN run_requests q ON q.run = r.id
  LEFT JOIN LATERAL (
      SELECT sum(events) FILTER (WHERE outcome = 'applied') AS applied,
             sum(events) FILTER (WHERE outcome = 'duplicate') AS duplicate,
             sum(events) FILTER (WHERE outcome = 'dead') AS dead,
             sum(digest_sum) % 340282366920938463463374607431768211456 AS digests
        FROM run_ledger WHERE run = r.id
  ) l ON TRUE
 WHERE r.closed_at IS NULL
 ORDER BY r.started_at, r.id;

-- name: run_columns
r.*, q.run IS NOT NULL AND q.taken_at IS NULL AND q.ended_at IS NULL AS waiting, q.first_day, q.last_day,
coalesce(q.force, FALSE) AS force, q.run IS NOT NULL AS asked,
coalesce(l.applied, 0)::bigint AS applied, coalesce(l.duplicate, 0)::bigint AS duplicate, coalesce(l.dead, 0)::bigint AS dead

-- name: run_sides
LEFT JOIN run_requests q ON q.run = r.id
LEFT JOIN LATERAL (
    SELECT sum(events) FILTER (WHERE outcome = 'applied') AS applied,
           sum(events) FILTER (WHERE outcome = 'duplicate') AS duplicate,
           sum(events) FILTER (WHERE outcome = 'dead') AS dead
      FROM run_ledger WHERE run = r.id
) l ON TRUE

-- name: list_runs
-- The newest first. `$1` restricts to a connector's id, `$2` is the limit.
WITH page AS MATERIALIZED (
    SELECT id FROM connector_runs WHERE $1::uuid IS NULL OR connector_id = $1 ORDER BY started_at DESC, id DESC LIMIT $2
)
SELECT {run_columns}
  FROM page JOIN every_run r ON r.id = page.id
  {run_sides}
 ORDER BY r.started_at DESC, r.id DESC;

-- name: find_runs
-- Those whose id is from `$1` to `$2`, and the one of number `$3`. `$4` limit.
WITH page AS MATERIALIZED (
    (SELECT id FROM connector_runs WHERE id BETWEEN $1 AND $2 LIMIT $4)
    UNION
    SELECT id FROM connector_runs WHERE row_id = $3::bigint
)
SELECT {run_columns}
  FROM page JOIN every_run r ON r.id = page.id
  {run_sides}
 ORDER BY r.started_at DESC, r.id DESC;

-- name: observed_connectors
-- What is known of every connector, for the monitor's verdict.
SELECT c.id, s.name, s.status, l.status AS last_run_status, l.reason AS last_run_reason, c.pause_note,
       r.state AS worker_state, r.problem, r.hint, r.reported_at, h.state AS health, h.cause, h.since, now() AS now
  FROM connectors c
  JOIN sp_v2_connectors s ON s.id = c.row_id
  LEFT JOIN connector_reports r ON r.connector_id = c.id
  LEFT JOIN connector_verdicts h ON h.connector_id = c.id
  LEFT JOIN LATERAL (
      SELECT status, reason FROM connector_runs
       WHERE connector_id = c.id AND closed_at IS NOT NULL AND run_type <> 'TEST' ORDER BY closed_at DESC LIMIT 1
  ) l ON TRUE
 WHERE c.deleted_at IS NULL
 ORDER BY s.name;

-- name: judge_connector
INSERT INTO connector_verdicts AS h (connector_id, state, cause)
VALUES ($1, $2, $3)
    ON CONFLICT (connector_id) DO UPDATE
   SET state = excluded.state, cause = excluded.cause, checked_at = now(),
       since = CASE WHEN h.state = excluded.state THEN h.since ELSE now() END;

-- name: chosen_letters
-- `$1` stage, `$2` reason, `$3` connector, `$4` state, `$5` run; null takes all. `$6`: only those of files that came again with other
-- content, from which events were stored.
($1::text IS NULL OR stage = $1) AND ($2::text IS NULL OR reason = $2) AND ($3::text IS NULL OR connector = $3)
   AND ($4::text IS NULL OR $4 = CASE WHEN discarded_at IS NOT NULL THEN 'discarded'
                                      WHEN redriven_at IS NOT NULL THEN 'redriven' ELSE 'open' END)
   AND ($5::uuid IS NULL OR run_id = $5 OR id IN (SELECT letter FROM letter_repeats WHERE run = $5))
   AND (NOT $6 OR id = ANY (ARRAY({corrected_letters})))

-- name: list_letters
-- The newest first, without bytes. `$7` limit.
SELECT id, stage, reason, message, hint, attempts, failed_at, event_id, run_id, connector_id, connector, topic, log_partition,
       log_offset, path, position, line, source_object, size_bytes, truncated, sqlstate, redrive_attempts, redrive_run_id,
       redriven_at, discarded_at, discarded_by, discard_note
  FROM dead_letters
 WHERE {chosen_letters}
 ORDER BY failed_at DESC, id
 LIMIT $7;

-- name: show_letter
-- Whole, by the beginning of its id; two rows tell that the beginning is not enough.
SELECT * FROM dead_letters WHERE id LIKE $1 || '%' ORDER BY id LIMIT 2;

-- name: lock_letters
-- Concurrent redrives of a letter come one after the other. A statement of its own: what a statement reads beside the row that it
-- waited for is as old as the statement.
SELECT FROM dead_letters WHERE id = ANY ($1) ORDER BY id FOR UPDATE;

-- name: locked_letters
-- The letters of these ids, whole, and whether a redrive of theirs is under way.
SELECT l.*, r.id IS NOT NULL AND r.closed_at IS NULL AS under_way
  FROM dead_letters l
  LEFT JOIN connector_runs r ON r.id = l.redrive_run_id
 WHERE l.id = ANY ($1)
 ORDER BY l.id;

-- name: discard_letters
-- An operator lets them go: `$2` note, `$3` who.
UPDATE dead_letters SET discarded_at = now(), discard_note = $2, discarded_by = $3
 WHERE id = ANY ($1) AND discarded_at IS NULL AND redriven_at IS NULL;

-- name: start_redrive
UPDATE dead_letters SET redrive_run_id = $2, redrive_attempts = redrive_attempts + 1
 WHERE id = ANY ($1);

-- name: owner_of_letters
-- The connector of the letters' run: their own where they share one that exists, else nothing.
SELECT c.id
  FROM (SELECT min(connector_id::text) AS id
          FROM dead_letters WHERE id = ANY ($1) AND discarded_at IS NULL AND redriven_at IS NULL
        HAVING count(DISTINCT connector_id) = 1 AND count(connector_id) = count(*)) AS shared
  JOIN connectors c ON c.id = shared.id::uuid;

-- name: reads_still
SELECT closed_at IS NULL AND reading_finished_at IS NULL FROM connector_runs WHERE id = $1 FOR SHARE;

-- name: confirm_redrives
-- Redriven is a letter whose redrive's run the sink has confirmed, whatever became of the attempt: if the record died again, its
-- new letter goes on from here, one attempt older. Of a run that failed, those are whose attempt the sink has counted, by the event id
-- that streams/redrive.py gives it.
UPDATE dead_letters l SET redriven_at = now()
  FROM (SELECT d.id
          FROM dead_letters d
          JOIN connector_runs r ON r.id = d.redrive_run_id
         CROSS JOIN LATERAL (SELECT encode(substr(sha256(convert_to(e'redrive\n' || d.id || e'\n' || d.redrive_attempts, 'UTF8')),
                                                  1, 16), 'hex') AS event_id) AS attempt
         CROSS JOIN LATERAL (SELECT encode(substr(sha256(convert_to(attempt.event_id, 'UTF8')), 1, 16), 'hex')::uuid AS digest)
                 AS hashed
         WHERE d.redriven_at IS NULL AND d.discarded_at IS NULL AND r.closed_at IS NOT NULL
           AND (r.status IN ('SUCCESS', 'PARTIAL_SUCCESS')
                OR EXISTS (SELECT FROM payment_events e WHERE e.digest = hashed.digest AND e.run = r.id)
                OR EXISTS (SELECT FROM event_repeats e WHERE e.digest = hashed.digest AND e.run = r.id)
                OR EXISTS (SELECT FROM event_deaths e WHERE e.digest = hashed.digest AND e.run = r.id))) AS counted
 WHERE l.id = counted.id;

-- name: letterless_connector
-- The connector of runs that redrive what no connector of ours published.
INSERT INTO connectors (id, name, kind, provider) VALUES ($1, 'redrive', 'redrive', 'redrive')
    ON CONFLICT (id) DO NOTHING;
