-- Pages of what operators look at, by key: never by offset.

-- name: connector_columns
c.*, h.state AS health, h.cause, h.since AS health_since, r.worker, r.state AS worker_state, r.listed_at, r.runs_open, r.active,
r.pending, r.left_behind, r.skipped, r.progress, r.reported_at, t.tests, t.tests_passed,
{connector_failed} AS failed

-- name: connector_failed
-- Whether `c`, if it is wanted active, fails: it paused itself over an error, or its last three runs failed, cancelled ones and tests
-- aside. What was before it was resumed, or configured anew, does not count.
(SELECT EXISTS (SELECT FROM connector_reports p WHERE p.connector_id = c.id AND p.state = 'paused' AND p.reported_at > anew.at)
        OR (SELECT count(*) = 3 AND bool_and(l.status = 'FAILED')
              FROM (SELECT l.status FROM connector_runs l
                     WHERE l.connector_id = c.id AND l.closed_at IS NOT NULL AND l.run_type <> 'TEST' AND l.cancelled_at IS NULL
                       AND l.closed_at > anew.at AND l.started_at > anew.at
                     ORDER BY l.closed_at DESC LIMIT 3) l)
   FROM (SELECT greatest(c.created_at, c.resumed_at, max(v.made_at)) AS at FROM connector_versions v
          WHERE v.connector_id = c.id AND v.version = c.configuration_version) anew)

-- name: connector_sides
LEFT JOIN connector_verdicts h ON h.connector_id = c.id
LEFT JOIN connector_reports r ON r.connector_id = c.id
LEFT JOIN LATERAL (
    SELECT count(*) AS tests, count(*) FILTER (WHERE status = 'SUCCESS') AS tests_passed
      FROM connector_runs WHERE connector_id = c.id AND closed_at IS NOT NULL AND run_type = 'TEST'
) t ON TRUE

-- name: list_connectors
-- By name. `$1` restricts to one: an id, a name, a number of seed 003, or that as seed 004 spells it. `$2`: deleted ones too, the
-- latest deleted first.
SELECT {connector_columns}
  FROM every_connector c
  {connector_sides}
 WHERE c.number IS NOT NULL AND (c.deleted_at IS NULL OR $2)
   AND ($1::text IS NULL OR c.id IN (SELECT id FROM connectors WHERE name = $1 OR id::text = lower($1) OR row_id::text = $1
                                                                   OR 'conn_' || row_id = $1))
 ORDER BY c.deleted_at DESC NULLS FIRST, c.name;

-- name: page_connectors
-- By name, after `$6`. `$1` part of the name or of seed 003's source entity, `$2` how it stands, `$3` kind, `$4` health, `$5` seed 003's
-- type, each null for any. `$7` limit.
WITH page AS MATERIALIZED (
    SELECT c.id, s.name
      FROM sp_v2_connectors s
      JOIN connectors c ON c.row_id = s.id
      LEFT JOIN connector_verdicts h ON h.connector_id = c.id
     WHERE ($1::text IS NULL OR strpos(lower(s.name), lower($1)) > 0 OR strpos(lower(s.source_entity), lower($1)) > 0)
       AND ($2::text IS NULL OR $2 = CASE WHEN s.status = 'ACTIVE' AND {connector_failed} THEN 'FAILED' ELSE s.status END)
       AND ($3::text IS NULL OR c.kind = $3)
       AND ($4::text IS NULL OR coalesce(h.state, 'unknown') = $4) AND ($5::text IS NULL OR s.connector_type = $5)
       AND ($6::text IS NULL OR s.name > $6)
     ORDER BY s.name
     LIMIT $7
)
SELECT {connector_columns}
  FROM page
  JOIN every_connector c ON c.id = page.id
  {connector_sides}
 ORDER BY c.name;

-- name: count_connectors
-- Living ones, by how they stand.
SELECT CASE WHEN s.status = 'ACTIVE' AND {connector_failed} THEN 'FAILED' ELSE coalesce(s.status, '') END AS status,
       count(*)::bigint AS connectors
  FROM sp_v2_connectors s JOIN connectors c ON c.row_id = s.id
 GROUP BY 1;

-- name: page_runs
-- The newest first, after (`$6`, `$7`). `$1` connector, `$2` status, `$3` type, `$4` and `$5` when it began (the second excluded), each
-- null for any. `$8` limit.
WITH page AS MATERIALIZED (
    SELECT id FROM connector_runs
     WHERE ($1::uuid IS NULL OR connector_id = $1) AND ($2::text IS NULL OR status = $2) AND ($3::text IS NULL OR run_type = $3)
       AND ($4::timestamptz IS NULL OR started_at >= $4) AND ($5::timestamptz IS NULL OR started_at < $5)
       AND ($6::timestamptz IS NULL OR (started_at, id) < ($6, $7::uuid))
     ORDER BY started_at DESC, id DESC
     LIMIT $8
)
SELECT {run_columns}
  FROM page JOIN every_run r ON r.id = page.id
  {run_sides}
 ORDER BY r.started_at DESC, r.id DESC;

-- name: page_files
-- Files of a connector `$1` or a run `$2`, null for any, the newest first, after `$4`. `$3` state, null for any; `$5` limit.
SELECT f.*, c.name AS connector
  FROM recon_ingested_file f JOIN connectors c ON c.id = f.connector_id
 WHERE ($1::uuid IS NULL OR f.connector_id = $1) AND ($2::uuid IS NULL OR f.run = $2) AND ($3::text IS NULL OR f.state = $3)
   AND ($4::bigint IS NULL OR f.id < $4)
 ORDER BY f.id DESC
 LIMIT $5;

-- name: list_versions
-- The newest first: before `$2`, null from the newest; `$3` limit.
SELECT version, kind, provider, configuration, made_at, made_by FROM connector_versions
 WHERE connector_id = $1 AND ($2::integer IS NULL OR version < $2)
 ORDER BY version DESC
 LIMIT $3;

-- name: find_version
SELECT version, kind, provider, configuration, made_at, made_by FROM connector_versions WHERE connector_id = $1 AND version = $2;

-- name: rename_connector
-- Returns nothing where it is deleted. A trigger lets its other name follow.
WITH side AS (
    UPDATE connectors SET revision = revision + 1 WHERE id = $1 AND deleted_at IS NULL RETURNING row_id
)
UPDATE sp_v2_connectors s SET name = $2, updated_at = now() FROM side WHERE s.id = side.row_id
RETURNING s.id;

-- name: schedule_connector
WITH side AS (
    UPDATE connectors SET revision = revision + 1 WHERE id = $1 AND deleted_at IS NULL RETURNING row_id
)
UPDATE sp_v2_connectors s
   SET schedule_enabled = $2, schedule_cron = $3, schedule_timezone = $4, updated_at = now()
  FROM side WHERE s.id = side.row_id
RETURNING s.id;

-- name: label_connector
-- Seed 003's own words for it.
WITH side AS (
    UPDATE connectors SET revision = revision + 1 WHERE id = $1 AND deleted_at IS NULL RETURNING row_id
)
UPDATE sp_v2_connectors s SET connector_type = $2, source_entity = $3, updated_at = now() FROM side WHERE s.id = side.row_id
RETURNING s.id;

-- name: set_actor
SELECT set_config('till.actor', $1, true);

-- name: activity_now
-- What is older than the oldest transaction at work has been seen by whoever reads from here.
SELECT pg_snapshot_xmin(pg_current_snapshot()) AS transaction;

-- name: activity_since
-- After the position (`$1`, `$2`), in its order; `$3` limit. Only what no transaction at work can come before. A position that this
-- database has not reached, because it was restored, is now.
WITH now AS (
    SELECT pg_snapshot_xmin(pg_current_snapshot()) AS horizon, pg_snapshot_xmax(pg_current_snapshot()) AS next
)
SELECT now.horizon, a.*, c.name AS connector
  FROM now
  LEFT JOIN LATERAL (
      SELECT * FROM activity
       WHERE (transaction, id) > ($1::xid8, $2::bigint) AND transaction < now.horizon AND $1::xid8 <= now.next
       ORDER BY transaction, id
       LIMIT $3
  ) a ON TRUE
  LEFT JOIN connectors c ON c.id = a.connector_id
 ORDER BY a.transaction, a.id;

-- name: activity_of_run
-- In order, after `$2`; `$3` limit.
SELECT a.*, c.name AS connector FROM activity a LEFT JOIN connectors c ON c.id = a.connector_id
 WHERE a.run = $1 AND ($2::bigint IS NULL OR a.id > $2)
 ORDER BY a.id
 LIMIT $3;

-- name: activity_of_connector
-- The newest first, before `$2`; `$3` limit.
SELECT a.*, c.name AS connector FROM activity a LEFT JOIN connectors c ON c.id = a.connector_id
 WHERE a.connector_id = $1 AND ($2::bigint IS NULL OR a.id < $2)
 ORDER BY a.id DESC
 LIMIT $3;

-- name: prune_activity
-- What is older than `$1`, at most `$2` rows.
WITH old AS (
    SELECT id FROM activity WHERE at < now() - $1::interval ORDER BY id LIMIT $2
)
DELETE FROM activity a USING old WHERE a.id = old.id;

-- name: open_test
-- A TEST run, which no worker owns: it freezes nothing. Returns its number, also where it is there already, or nothing where the
-- connector is deleted.
WITH before AS (
    SELECT row_id FROM connector_runs WHERE id = $1
), seed AS (
    INSERT INTO sp_v2_connector_runs (connector_id, run_type, run_date, status, triggered_by)
    SELECT row_id, 'TEST', current_date, 'RUNNING', left($3, 100) FROM connectors
     WHERE id = $2 AND deleted_at IS NULL AND NOT EXISTS (SELECT FROM before)
    RETURNING id, started_at
), made AS (
    INSERT INTO connector_runs (id, row_id, connector_id, run_type, started_at)
    SELECT $1, id, $2, 'TEST', started_at FROM seed
    RETURNING row_id
)
SELECT row_id FROM before UNION ALL SELECT row_id FROM made;

-- name: beat_test
UPDATE connector_runs SET heartbeat_at = now() WHERE id = $1 AND closed_at IS NULL RETURNING cancelled_at IS NOT NULL AS cancelled;

-- name: detail_test
-- What a TEST run's row of seed 003 tells beside its counts: `$2`.
UPDATE sp_v2_connector_runs s SET details = coalesce(s.details, '{}') || $2::jsonb
  FROM connector_runs r WHERE r.id = $1 AND s.id = r.row_id;

-- name: living_configurations
-- What is written to a file before it commits is named here only after: whoever sweeps spares what is young.
SELECT s.connection_config FROM sp_v2_connectors s JOIN connectors c ON c.row_id = s.id;
