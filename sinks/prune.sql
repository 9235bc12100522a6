-- Pruning: repeats of runs that closed long ago become one count and one sum.


-- name: prunable_place
-- A partition with repeats older than `$1` of runs that closed before that. A run that is open, or that nobody knows, stays.
SELECT e.topic, e.log_partition
  FROM {schema}.event_repeats e JOIN {schema}.connector_runs r ON r.id = e.run
 WHERE e.first_seen_at < now() - $1::interval AND r.closed_at < now() - $1::interval
 LIMIT 1;


-- name: prune_repeats
-- At most `$4` of them, of partition `$1`/`$2`, whose lock is held: the sink sees the row or the count, never neither.
WITH gone AS (
    DELETE FROM {schema}.event_repeats
     WHERE ctid = ANY (ARRAY (
               SELECT e.ctid
                 FROM {schema}.event_repeats e JOIN {schema}.connector_runs r ON r.id = e.run
                WHERE e.topic = $1 AND e.log_partition = $2
                  AND e.first_seen_at < now() - $3::interval AND r.closed_at < now() - $3::interval
                LIMIT $4))
    RETURNING run, digest
), summed AS (
    SELECT run, count(*) AS events, sum(high) AS high, sum(low) AS low, count(*) FILTER (WHERE low < 0) AS negative
      FROM (SELECT run, {halves} FROM gone) AS halved
     GROUP BY run
), kept AS (
    INSERT INTO {schema}.pruned_repeats AS p (run, log_partition, topic, events, digest_sum)
    SELECT run, $2, $1, events, {digest_sum} FROM summed
        ON CONFLICT (run, topic, log_partition) DO UPDATE
       SET events = p.events + excluded.events,
           digest_sum = mod(p.digest_sum + excluded.digest_sum, 340282366920938463463374607431768211456),
           pruned_at = now()
)
SELECT count(*) FROM gone;
