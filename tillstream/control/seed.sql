-- What the seeds' answers hold beside what services tell: seed 003's rows as they are, seed 004's views.

-- name: seed_runs
-- A connector's runs, the newest first, by its number: `$2` limit, `$3` offset. Files are counted for these alone.
WITH page AS MATERIALIZED (
    SELECT id FROM sp_v2_connector_runs WHERE connector_id = $1 ORDER BY started_at DESC, id DESC LIMIT $2 OFFSET $3
)
SELECT s.id, s.run_type, s.run_date, s.status, s.records_processed, s.records_success, s.records_failed, s.duration_seconds,
       s.error_message, s.started_at, s.completed_at, s.triggered_by, v.files_total, v.files_normalized, v.files_failed, v.files_skipped
  FROM page
  JOIN sp_v2_connector_runs s ON s.id = page.id
  JOIN LATERAL (SELECT * FROM recon_connector_run v WHERE v.number = page.id) v ON TRUE
 ORDER BY s.started_at DESC, s.id DESC;

-- name: seed_runs_count
SELECT count(*) FROM sp_v2_connector_runs WHERE connector_id = $1;

-- name: seed_health
-- How connectors fare in seed 004's words; `$1` restricts to these numbers.
SELECT number, health_status, last_run_at, last_run_status, last_success_at, backlog
  FROM connector_health WHERE $1::bigint[] IS NULL OR number = ANY ($1);

-- name: seed_types
SELECT number, type FROM recon_connector WHERE $1::bigint[] IS NULL OR number = ANY ($1);
