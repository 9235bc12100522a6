-- Where tasks stand.

-- name: list_cursors
-- Of a connector, by task, from the one after `$2` (null: the first); `$3` how many.
SELECT task, descriptor, cursor, done, run_id, epoch, seq, revision_at, updated_at
  FROM checkpoints
 WHERE connector_id = $1 AND ($2::text IS NULL OR task > $2)
 ORDER BY task
 LIMIT $3;
