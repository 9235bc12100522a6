-- Replays that operators asked for.

-- name: make_replay
INSERT INTO replays (id, since, until, apply, requested_by) VALUES ($1, $2, $3, $4, $5);

-- name: beat_replay
UPDATE replays SET heartbeat_at = now() WHERE id = $1 AND ended_at IS NULL;

-- name: end_replay
UPDATE replays SET status = $2, report = $3, error = $4, ended_at = now() WHERE id = $1 AND ended_at IS NULL;

-- name: replay_at_work
-- One whose heart beat within `$1` seconds.
SELECT id FROM replays WHERE ended_at IS NULL AND heartbeat_at > now() - $1 * interval '1 second' LIMIT 1;

-- name: find_replay
SELECT *, heartbeat_at < now() - $2 * interval '1 second' AS silent FROM replays WHERE id = $1;

-- name: page_replays
-- The newest first, after (`$2`, `$3`); `$4` how many.
SELECT *, heartbeat_at < now() - $1 * interval '1 second' AS silent
  FROM replays
 WHERE $2::timestamptz IS NULL OR (started_at, id) < ($2, $3::uuid)
 ORDER BY started_at DESC, id DESC
 LIMIT $4;
