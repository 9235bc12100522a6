-- Replay: a range of the log, applied to shadow tables by the same statement, beside the live tables.


-- name: create_shadow
-- Tables like the live ones, indexes and defaults included. What a run or a connector is stays live.
CREATE SCHEMA {schema};
COMMENT ON SCHEMA {schema} IS 'tillstream: tables of a replay';
CREATE TABLE {schema}.event_origins (LIKE {live}.event_origins INCLUDING ALL);
CREATE TABLE {schema}.payment_events (LIKE {live}.payment_events INCLUDING ALL);
CREATE TABLE {schema}.payments (LIKE {live}.payments INCLUDING ALL);
CREATE TABLE {schema}.event_repeats (LIKE {live}.event_repeats INCLUDING ALL);
CREATE TABLE {schema}.pruned_repeats (LIKE {live}.pruned_repeats INCLUDING ALL);
CREATE TABLE {schema}.event_deaths (LIKE {live}.event_deaths INCLUDING ALL);
CREATE TABLE {schema}.run_ledger (LIKE {live}.run_ledger INCLUDING ALL);
CREATE TABLE {schema}.sink_offsets (LIKE {live}.sink_offsets INCLUDING ALL);


-- name: drop_shadow
DROP SCHEMA IF EXISTS {schema} CASCADE;


-- name: shadow_lock
hashtextextended('tillstream replay ' || $1, 0)


-- name: own_shadow
-- For as long as the session lives, the schema `$1` has an owner.
SELECT pg_advisory_lock({shadow_lock});


-- name: take_shadow
SELECT pg_try_advisory_lock({shadow_lock});


-- name: leave_shadow
SELECT pg_advisory_unlock({shadow_lock});


-- name: left_behind
-- Schemas that a replay made, and whose session has ended. One that somebody else called so has no such comment.
SELECT n.nspname AS schema
  FROM pg_namespace n
 CROSS JOIN LATERAL (SELECT hashtextextended('tillstream replay ' || n.nspname, 0)) AS lock (key)
 WHERE n.nspname LIKE 'replay\_%' AND obj_description(n.oid, 'pg_namespace') = 'tillstream: tables of a replay'
   AND NOT EXISTS (SELECT
                     FROM pg_locks l
                    WHERE l.locktype = 'advisory' AND l.objsubid = 1
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND l.classid::bigint = (lock.key >> 32) & 4294967295 AND l.objid::bigint = lock.key & 4294967295)
 ORDER BY n.nspname;


-- name: missing_outcomes
-- What the log gave and the live tables lack: events and adjustments, repeats under other runs, deaths; just what `insert_missing`
-- inserts. What died when the live sink met it is in a dead letter instead, also where it would go through now: bringing it back is a
-- redrive. A pruned run's repeats are counted already.
SELECT event_id, run
  FROM (SELECT s.event_id, s.run
          FROM {schema}.payment_events s
         WHERE (NOT EXISTS (SELECT FROM {live}.payment_events e WHERE e.digest = s.digest)
                OR NOT EXISTS (SELECT FROM {live}.payment_events e WHERE e.payment = s.payment AND e.key = s.key))
           AND NOT EXISTS (SELECT
                             FROM {live}.event_deaths d
                            WHERE d.digest = s.digest AND d.run = s.run AND d.content IN (s.content, {not_decoded}))
        UNION
        SELECT p.event_id, p.run
          FROM (SELECT digest, run, event_id FROM {schema}.payment_events
                UNION ALL
                SELECT r.digest, r.run, s.event_id
                  FROM {schema}.event_repeats r JOIN {schema}.payment_events s USING (digest)) AS p
         WHERE NOT EXISTS (SELECT FROM {live}.payment_events e WHERE e.digest = p.digest AND e.run = p.run)
           AND NOT EXISTS (SELECT FROM {live}.event_repeats r WHERE r.digest = p.digest AND r.run = p.run)
           AND NOT EXISTS (SELECT FROM {live}.event_deaths d WHERE d.digest = p.digest AND d.run = p.run)
           AND NOT EXISTS (SELECT FROM {live}.pruned_repeats x WHERE x.run = p.run)
        UNION
        SELECT s.event_id, s.run
          FROM {schema}.event_deaths s
         WHERE NOT EXISTS (SELECT
                             FROM {live}.event_deaths d
                            WHERE d.digest = s.digest AND d.run = s.run AND d.content = s.content)
           AND NOT EXISTS (SELECT
                             FROM {live}.payment_events e
                            WHERE e.digest = s.digest AND (s.content IN (e.content, {not_decoded}))
                              AND (e.run = s.run OR EXISTS (SELECT
                                                              FROM {live}.event_repeats r
                                                             WHERE r.digest = s.digest AND r.run = s.run)))
       ) AS missing
 ORDER BY event_id, run
 LIMIT $1;


-- name: missing_events
-- Events that the live tables first saw inside the range, and that the log did not give: `$1` topic, `$2` partitions with the
-- offsets from which (`$3`) and up to which (`$4`) was read.
SELECT e.event_id, e.run
  FROM unnest($2::integer[], $3::bigint[], $4::bigint[]) AS r (log_partition, start_offset, end_offset)
  JOIN {live}.event_origins o ON o.topic = $1 AND o.log_partition = r.log_partition
  JOIN {live}.payment_events e ON e.origin = o.id AND e.log_offset >= r.start_offset AND e.log_offset < r.end_offset
 WHERE NOT EXISTS (SELECT FROM {schema}.payment_events s WHERE s.digest = e.digest)
 ORDER BY e.event_id
 LIMIT $5;


-- name: shadow_partitions
-- The partitions that the shadow has something of.
SELECT topic, log_partition FROM {schema}.event_origins
UNION
SELECT topic, log_partition FROM {schema}.event_deaths
ORDER BY topic, log_partition;


-- name: insert_missing
-- What the shadow's partition `$1`/`$2` has and the live tables lack, under the live partition's lock. Deletes nothing.
-- Returns the payments to fold again, and whose counts changed.
WITH origins AS (
    INSERT INTO {live}.event_origins SELECT * FROM {schema}.event_origins WHERE topic = $1 AND log_partition = $2
        ON CONFLICT (id) DO NOTHING
), events AS (
    INSERT INTO {live}.payment_events
           (digest, payment, key, content, run, origin, amount, effective_at, revision_at, revision_seq, log_offset, line,
            rank, sign, kind, moved, status, asset, scheme, provider, type, reference, parent_reference, event_id, position,
            raw)
    SELECT s.digest, s.payment, s.key, s.content, s.run, s.origin, s.amount, s.effective_at, s.revision_at, s.revision_seq,
           s.log_offset, s.line, s.rank, s.sign, s.kind, s.moved, s.status, s.asset, s.scheme, s.provider, s.type,
           s.reference, s.parent_reference, s.event_id, s.position, s.raw
      FROM {schema}.payment_events s JOIN {schema}.event_origins o ON o.id = s.origin
     WHERE o.topic = $1 AND o.log_partition = $2
       AND NOT EXISTS (SELECT FROM {live}.payment_events e WHERE e.digest = s.digest)
       -- one outcome for each (run, event): what died is in a letter
       AND NOT EXISTS (SELECT
                         FROM {live}.event_deaths d
                        WHERE d.digest = s.digest AND d.run = s.run AND d.content IN (s.content, {not_decoded}))
     ORDER BY s.ordinal
        ON CONFLICT (digest) DO NOTHING
    RETURNING digest, run, payment
), pairs AS (
    -- Every (event, run) that the log gave here.
    SELECT s.digest, s.run, s.log_offset
      FROM {schema}.payment_events s JOIN {schema}.event_origins o ON o.id = s.origin
     WHERE o.topic = $1 AND o.log_partition = $2
    UNION ALL
    SELECT digest, run, log_offset FROM {schema}.event_repeats WHERE topic = $1 AND log_partition = $2
), repeats AS (
    INSERT INTO {live}.event_repeats (digest, run, log_offset, log_partition, topic)
    SELECT p.digest, p.run, p.log_offset, $2, $1
      FROM pairs p
     WHERE NOT EXISTS (SELECT FROM {live}.payment_events e WHERE e.digest = p.digest AND e.run = p.run)
       AND NOT EXISTS (SELECT FROM events e WHERE e.digest = p.digest AND e.run = p.run)
       AND NOT EXISTS (SELECT FROM {live}.event_deaths d WHERE d.digest = p.digest AND d.run = p.run)
       -- a pruned run's repeats are counted already
       AND NOT EXISTS (SELECT FROM {live}.pruned_repeats x WHERE x.run = p.run)
        ON CONFLICT (digest, run) DO NOTHING
    RETURNING run
), deaths AS (
    INSERT INTO {live}.event_deaths
           (digest, run, content, log_offset, log_partition, topic, event_id, letter_id, reason)
    SELECT s.digest, s.run, s.content, s.log_offset, s.log_partition, s.topic, s.event_id, s.letter_id, s.reason
      FROM {schema}.event_deaths s
     WHERE s.topic = $1 AND s.log_partition = $2
       -- Of the records of one event id, the live sink may have met another one first: what it stored is not dead.
       AND NOT EXISTS (SELECT
                         FROM {live}.payment_events e
                        WHERE e.digest = s.digest AND (s.content IN (e.content, {not_decoded}))
                          AND (e.run = s.run OR EXISTS (SELECT
                                                          FROM {live}.event_repeats r
                                                         WHERE r.digest = s.digest AND r.run = s.run)))
        ON CONFLICT (digest, run, content) DO NOTHING
    RETURNING run
)
SELECT ARRAY(SELECT DISTINCT payment FROM events) AS payments,
       -- An event that comes back late may change which one of its key was the first: the others' runs count again too.
       ARRAY(SELECT run FROM events UNION SELECT run FROM repeats UNION SELECT run FROM deaths
             UNION SELECT run FROM {live}.payment_events WHERE payment IN (SELECT payment FROM events)) AS runs,
       (SELECT count(*) FROM events) AS events,
       (SELECT count(*) FROM repeats) AS repeats,
       (SELECT count(*) FROM deaths) AS deaths;


-- name: wrong_payments
-- Payments with events that are not the fold of them, with a partition that holds one of their events.
WITH {whole}
SELECT f.payment, min(o.topic) AS topic, min(o.log_partition) AS log_partition
  FROM folded f
  JOIN {schema}.payment_events e ON e.payment = f.payment
  JOIN {schema}.event_origins o ON o.id = e.origin
  LEFT JOIN {schema}.payments p ON p.payment = f.payment
 WHERE (p.payment, p.status_key, p.initial_amount, p.status_at, p.created_at, p.adjustments, p.status_rank, p.awaiting_original,
        p.over_refund, p.conflicting_amounts, p.asset_mismatch, p.amount, p.status, p.dispute, p.asset, p.scheme)
       IS DISTINCT FROM
       (f.payment, f.status_key, f.initial_amount, f.status_at, f.created_at, f.adjustments, f.status_rank, f.awaiting_original,
        f.over_refund, f.conflicting_amounts, f.asset_mismatch, f.amount, f.status, f.dispute, f.asset, f.scheme)
 GROUP BY f.payment
 ORDER BY 2, 3, 1;


-- name: refold
-- Fold these payments again from all of their event rows. Returns how many changed.
WITH event_rows AS (
    SELECT digest, payment, key, content, kind, status, rank, sign, moved, amount, asset, scheme, effective_at,
           revision_at, revision_seq, provider, type, coalesce(parent_reference, reference) AS original, 0::bigint AS arrival
      FROM {schema}.payment_events
     WHERE payment = ANY ($1)
), {fold}, states AS (
    SELECT * FROM folded
), {stored}
SELECT count(*) FROM stored;


-- name: recount
-- The ledger of partition `$1`/`$2` as its rows say, for the runs `$3`: also an outcome that no row has any more.
WITH {recounted}, counted AS (
    SELECT * FROM recounted WHERE topic = $1 AND log_partition = $2 AND run = ANY ($3)
), gone AS (
    DELETE FROM {schema}.run_ledger l
     WHERE l.topic = $1 AND l.log_partition = $2 AND l.run = ANY ($3)
       AND NOT EXISTS (SELECT FROM counted c WHERE c.run = l.run AND c.outcome = l.outcome)
)
INSERT INTO {schema}.run_ledger AS l (run, log_partition, topic, outcome, events, digest_sum)
SELECT run, log_partition, topic, outcome, events, digest_sum
  FROM counted
    ON CONFLICT (run, topic, log_partition, outcome) DO UPDATE
   SET events = excluded.events, digest_sum = excluded.digest_sum, updated_at = now()
 WHERE (l.events, l.digest_sum) IS DISTINCT FROM (excluded.events, excluded.digest_sum);
