-- Dead letters as lists show them. `$1` stage, `$2` reason, `$3` connector, `$4` state, `$5` run; null takes all. `$6`: only those of
-- files that came again with other content, from which events were stored.

-- name: page_letters
-- The newest first, without bytes, from the one after (`$7`, `$8`); `$9` how many.
SELECT id, stage, reason, message, hint, attempts, failed_at, event_id, run_id, connector_id, connector, topic, log_partition,
       log_offset, path, position, line, source_object, size_bytes, truncated, sqlstate, redrive_attempts, redrive_run_id,
       redriven_at, discarded_at, discarded_by, discard_note
  FROM dead_letters
 WHERE {wanted_letters}
   AND ($7::timestamptz IS NULL OR (failed_at <= $7 AND (failed_at < $7 OR id > $8)))
 ORDER BY failed_at DESC, id
 LIMIT $9;

-- name: group_letters
-- By what they died of; `$7` how many groups. They are counted from an index alone; what the newest of each says is looked up, in two
-- ways, because an index finds what equals a null only where that is said.
SELECT g.stage, g.reason, g.connector, g.connector_id, g.letters, g.first_at, g.last_at, n.id AS last_id, n.message, n.hint
  FROM (SELECT stage, reason, connector, connector_id, count(*) AS letters, min(failed_at) AS first_at, max(failed_at) AS last_at
          FROM dead_letters
         WHERE {wanted_letters}
         GROUP BY stage, reason, connector, connector_id
         ORDER BY letters DESC, stage, reason, connector, connector_id
         LIMIT $7) g
 CROSS JOIN LATERAL (
     (SELECT id, message, hint FROM dead_letters l
       WHERE l.stage = g.stage AND l.reason = g.reason AND l.connector = g.connector AND l.connector_id = g.connector_id
         AND {wanted_letters}
       ORDER BY l.failed_at DESC, l.id
       LIMIT 1)
     UNION ALL
     (SELECT id, message, hint FROM dead_letters l
       WHERE l.stage = g.stage AND l.reason = g.reason AND l.connector = g.connector AND l.connector_id IS NULL
         AND g.connector_id IS NULL AND {wanted_letters}
       ORDER BY l.failed_at DESC, l.id
       LIMIT 1)
 ) n
 ORDER BY g.letters DESC, g.stage, g.reason, g.connector, g.connector_id;

-- name: redriven_as
-- The letters of a redrive that is begun.
SELECT id FROM dead_letters WHERE redrive_run_id = $1 ORDER BY failed_at DESC, id;

-- name: wanted_letters
-- The planner knows the parameters: what is null falls away, and of the states one is left.
($1::text IS NULL OR stage = $1) AND ($2::text IS NULL OR reason = $2) AND ($3::uuid IS NULL OR connector_id = $3)
   AND CASE $4::text WHEN 'open' THEN discarded_at IS NULL AND redriven_at IS NULL
                     WHEN 'redriven' THEN discarded_at IS NULL AND redriven_at IS NOT NULL
                     WHEN 'discarded' THEN discarded_at IS NOT NULL
                     ELSE TRUE END
   AND ($5::uuid IS NULL OR id = ANY (ARRAY(SELECT id FROM dead_letters WHERE run_id = $5
                                            UNION ALL SELECT letter FROM letter_repeats WHERE run = $5)))
   AND (NOT $6 OR id = ANY (ARRAY({corrected_letters})))

-- name: corrected_letters
-- Ids of letters of files that came again later with other content, from which events were stored. Each file is looked up once.
WITH again AS MATERIALIZED (
    SELECT f.connector_id, f.path, f.source_object, a.at
      FROM (SELECT DISTINCT connector_id, path, source_object FROM dead_letters WHERE stage = 'source' AND path <> '') f
     CROSS JOIN LATERAL (SELECT max(o.first_seen_at) AS at FROM event_origins o
                          WHERE o.connector = f.connector_id AND o.path = f.path AND o.source_object <> f.source_object) a
     WHERE a.at IS NOT NULL
)
SELECT l.id
  FROM again
  JOIN dead_letters l ON l.connector_id = again.connector_id AND l.path = again.path AND l.source_object = again.source_object
 WHERE l.stage = 'source' AND l.path <> '' AND l.failed_at < again.at
