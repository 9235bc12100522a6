-- Dead letters as lists show them. `$1` stage, `$2` reason, `$3` connector, `$4` state, `$5` run; null takes all. `$6`: only those of
-- files that came again with other content, from which events were stored.

-- name: page_letters
-- The newest first, without bytes, from the one after (`$7`, `$8`); `$9` how many.
SELECT id, stage, reason, message, hint, attempts, failed_at, event_id, run_id, connector_id, connector, topic, log_partition,
       log_offset, path, position, line, source_object, size_bytes, truncated, sqlstate, redrive_attempts, redrive_run_id,
       redriven_at, discarded_at, discarded_by, discard_note
  FROM dead_letters
 WHERE {wanted_letters}
   AND ($7::timestamptz IS NULL OR failed_at < $7 OR (failed_at = $7 AND id > $8))
 ORDER BY failed_at DESC, id
 LIMIT $9;

-- name: group_letters
-- By what they died of; `$7` how many groups.
SELECT stage, reason, connector, connector_id, count(*) AS letters, min(failed_at) AS first_at, max(failed_at) AS last_at,
       (array_agg(id ORDER BY failed_at DESC, id))[1] AS last_id, (array_agg(message ORDER BY failed_at DESC, id))[1] AS message,
       (array_agg(hint ORDER BY failed_at DESC, id))[1] AS hint
  FROM dead_letters
 WHERE {wanted_letters}
 GROUP BY stage, reason, connector, connector_id
 ORDER BY letters DESC, stage, reason, connector, connector_id
 LIMIT $7;

-- name: redriven_as
-- The letters of a redrive that is begun.
SELECT id FROM dead_letters WHERE redrive_run_id = $1 ORDER BY failed_at DESC, id;

-- name: wanted_letters
($1::text IS NULL OR stage = $1) AND ($2::text IS NULL OR reason = $2) AND ($3::uuid IS NULL OR connector_id = $3)
   AND ($4::text IS NULL OR $4 = CASE WHEN discarded_at IS NOT NULL THEN 'discarded'
                                      WHEN redriven_at IS NOT NULL THEN 'redriven' ELSE 'open' END)
   AND ($5::uuid IS NULL OR run_id = $5 OR id IN (SELECT letter FROM letter_repeats WHERE run = $5))
   AND (NOT $6 OR id IN (SELECT l.id
                           FROM dead_letters l
                           JOIN event_origins o ON o.connector = l.connector_id AND o.path = l.path
                                               AND o.source_object <> l.source_object AND o.first_seen_at > l.failed_at
                          WHERE l.stage = 'source' AND l.path <> ''))
