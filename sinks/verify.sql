-- What `till ledger verify` asks. Everything is recomputed from the rows themselves; nothing here trusts a stored count or hash.


-- name: halves
-- A digest as two signed 64-bit integers, for sums.
('x' || left(encode(uuid_send(digest), 'hex'), 16))::bit(64)::bigint AS high,
('x' || right(encode(uuid_send(digest), 'hex'), 16))::bit(64)::bigint AS low


-- name: recounted
-- The sink's side of the ledger, counted from rows: the first event of a key was applied, every other one was a duplicate.
-- Of repeats that were pruned, counts and sums are left.
of_rows AS (
    SELECT run, topic, log_partition, outcome, events, {digest_sum} AS digest_sum
      FROM (SELECT run, topic, log_partition, outcome, count(*) AS events, sum(high) AS high, sum(low) AS low,
                   count(*) FILTER (WHERE low < 0) AS negative
              FROM (SELECT run, topic, log_partition, outcome, {halves}
                      FROM (SELECT e.run, coalesce(o.topic, '') AS topic, coalesce(o.log_partition, -1) AS log_partition, e.digest,
                                   CASE WHEN e.ordinal = min(e.ordinal) OVER (PARTITION BY e.payment, e.key)
                                        THEN 'applied' ELSE 'duplicate' END AS outcome
                              FROM {schema}.payment_events e LEFT JOIN {schema}.event_origins o ON o.id = e.origin
                            UNION ALL
                            SELECT run, topic, log_partition, digest, 'duplicate' FROM {schema}.event_repeats
                            UNION ALL
                            SELECT run, topic, log_partition, digest, 'dead' FROM {schema}.event_deaths) AS outcomes) AS halved
             GROUP BY run, topic, log_partition, outcome) AS summed
), recounted AS (
    SELECT run, topic, log_partition, outcome, sum(events)::bigint AS events,
           mod(sum(digest_sum), 340282366920938463463374607431768211456) AS digest_sum
      FROM (SELECT run, topic, log_partition, outcome, events, digest_sum FROM of_rows
            UNION ALL
            SELECT run, topic, log_partition, 'duplicate', events, digest_sum FROM {schema}.pruned_repeats) AS parts
     GROUP BY run, topic, log_partition, outcome
)


-- name: verify_ledger
WITH {recounted}
SELECT run, topic, log_partition, outcome, l.events AS ledger_events, c.events AS row_events
  FROM {schema}.run_ledger l
  FULL JOIN recounted c USING (run, topic, log_partition, outcome)
 WHERE (l.events, l.digest_sum) IS DISTINCT FROM (c.events, c.digest_sum)
 ORDER BY run, topic, log_partition, outcome;


-- name: verify_runs
-- Each run's source side beside the sink's, and what its last checkpoints say was published.
SELECT r.id AS run, c.name AS connector, r.status,
       r.read, r.published, r.rejected, r.filtered, r.published_sum, r.reading_finished_at, r.closed_at,
       coalesce(l.events, 0)::bigint AS confirmed, coalesce(l.digest_sum, 0) AS confirmed_sum,
       coalesce(p.published, 0)::bigint AS checkpointed
  FROM {schema}.connector_runs r
  JOIN {schema}.connectors c ON c.id = r.connector_id
  LEFT JOIN (SELECT run, sum(events) AS events, mod(sum(digest_sum), 340282366920938463463374607431768211456) AS digest_sum
               FROM {schema}.run_ledger GROUP BY run) l ON l.run = r.id
  LEFT JOIN (SELECT run_id, sum((counts ->> 'published')::bigint) AS published
               FROM {schema}.checkpoints GROUP BY run_id) p ON p.run_id = r.id
 WHERE r.reading_finished_at IS NOT NULL OR r.closed_at IS NOT NULL
 ORDER BY r.started_at, r.id;


-- name: instant
-- An instant as schemas/identity.py spells it.
coalesce(to_char(effective_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS')
         || CASE WHEN extract(microseconds FROM effective_at)::bigint % 1000000 = 0 THEN ''
                 ELSE to_char(effective_at AT TIME ZONE 'UTC', '.US') END || '+00:00', '')


-- name: verify_events
-- Event rows that are not what their hashes say. `1` to `5` name what differs: event id, payment, key, content, meaning.
WITH spelled AS (
    SELECT run, event_id, digest, payment, key, content, rank, sign, kind, moved, status,
           array_position({statuses}, status) AS meaning,
           event_id AS digest_text,
           length(provider) || ':' || provider || length(original) || ':' || original || length(type) || ':' || type AS payment_text,
           length(status) || ':' || status
               || CASE kind WHEN 'd' THEN '5:delta' || length(reference) || ':' || reference
                            ELSE length(instant) || ':' || instant || length(amount::text) || ':' || amount END AS key_text,
           length(provider) || ':' || provider || length(reference) || ':' || reference
               || length(coalesce(parent_reference, '')) || ':' || coalesce(parent_reference, '')
               || length(type) || ':' || type || length(status) || ':' || status || length(amount::text) || ':' || amount
               || length(asset) || ':' || asset || length(scheme) || ':' || scheme || length(instant) || ':' || instant
               || coalesce(length(raw) + 1 || ':+' || raw, '1:-') AS content_text
      FROM (SELECT *, coalesce(parent_reference, reference) AS original, {instant} AS instant
              FROM {schema}.payment_events) AS e
), hashed AS (
    SELECT run, event_id,
           digest <> encode(substr(sha256(convert_to(digest_text, 'UTF8')), 1, 16), 'hex')::uuid AS digest,
           payment <> encode(substr(sha256(convert_to(payment_text, 'UTF8')), 1, 16), 'hex')::uuid AS payment,
           key <> encode(substr(sha256(convert_to(payment_text || key_text, 'UTF8')), 1, 16), 'hex')::uuid AS key,
           content <> encode(substr(sha256(convert_to(content_text, 'UTF8')), 1, 16), 'hex')::uuid AS content,
           (rank, sign, kind, moved, status) IS DISTINCT FROM ({meanings}) AS meaning
      FROM spelled
)
SELECT run, event_id,
       array_remove(ARRAY[CASE WHEN digest THEN 'event id' END, CASE WHEN payment THEN 'payment' END,
                          CASE WHEN key THEN 'adjustment key' END, CASE WHEN content THEN 'content' END,
                          CASE WHEN meaning THEN 'status' END], NULL) AS differs
  FROM hashed
 WHERE digest OR payment OR key OR content OR meaning
 ORDER BY run, event_id
 LIMIT $1;


-- name: whole
-- The fold over every event row of the schema.
event_rows AS (
    SELECT digest, payment, key, content, kind, status, rank, sign, moved, amount, asset, scheme, effective_at,
           revision_at, revision_seq, provider, type, coalesce(parent_reference, reference) AS original, 0::bigint AS arrival
      FROM {schema}.payment_events
), {fold}


-- name: verify_payments
-- Payments that are not the fold of their events. `problem` tells how.
WITH {whole}
SELECT coalesce(p.payment, f.payment) AS payment, coalesce(p.id, f.id) AS id,
       CASE WHEN p.payment IS NULL THEN 'missing' WHEN f.payment IS NULL THEN 'without events' ELSE 'differs' END AS problem
  FROM {schema}.payments p
  FULL JOIN (SELECT *, {payment_id} AS id FROM folded) f ON f.payment = p.payment
 WHERE (p.payment, p.status_key, p.initial_amount, p.status_at, p.created_at, p.adjustments, p.status_rank, p.awaiting_original,
        p.over_refund, p.conflicting_amounts, p.asset_mismatch, p.amount, p.status, p.dispute, p.asset, p.scheme, p.provider,
        p.type, p.reference, p.id)
       IS DISTINCT FROM
       (f.payment, f.status_key, f.initial_amount, f.status_at, f.created_at, f.adjustments, f.status_rank, f.awaiting_original,
        f.over_refund, f.conflicting_amounts, f.asset_mismatch, f.amount, f.status, f.dispute, f.asset, f.scheme, f.provider,
        f.type, f.reference, f.id)
 ORDER BY 2
 LIMIT $1;


-- name: hash_payments
-- Business columns only: no lineage, no clock.
SELECT payment, id, provider, type, reference, status, status_rank, status_key, status_at, initial_amount, amount, asset, scheme,
       dispute, created_at, adjustments, awaiting_original, over_refund, conflicting_amounts, asset_mismatch
  FROM {schema}.payments
 ORDER BY payment;


-- name: hash_adjustments
WITH {whole}
SELECT payment, key, kind, status, rank, sign, moved, amount, asset, scheme, effective_at, provider, type, original, conflicting
  FROM represented
 ORDER BY payment, key;
