-- The sink's statements. `sinks/statement.py` reads this file; {schema} is the schema they work in, {fold} the block of that name.
-- Every parameter is an array of one column, or a scalar: nothing of a payment ever becomes SQL text.


-- name: lock_partition
-- Two statements in one round trip: whatever follows takes a snapshot that is younger than the lock. Held until the commit.
BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock({lock});


-- name: fold
-- Payments of the event rows in `event_rows`; `arrival` is 0 for rows known before this call. One definition for applying,
-- verifying and replaying; `sinks/fold.py` is its twin in Python. Design: docs/decisions, "The payments model".
represented AS (
    -- One row per key: greatest revision, then content. A key is as old as its oldest event.
    SELECT DISTINCT ON (payment, key)
           payment, key, kind, status, rank, sign, moved, amount, asset, scheme, effective_at, provider, type, original,
           effective_at IS NOT NULL AS dated,
           last_value(revision_at) OVER versions AS key_revision_at,
           last_value(revision_seq) OVER versions AS key_revision_seq,
           min(amount) OVER versions <> max(amount) OVER versions
               OR min(asset) OVER versions <> max(asset) OVER versions AS conflicting,
           min(arrival) OVER versions AS arrival
      FROM event_rows
    WINDOW versions AS (PARTITION BY payment, key
                        ORDER BY revision_at DESC, revision_seq DESC, content DESC, digest DESC
                        ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
     ORDER BY payment, key, revision_at DESC, revision_seq DESC, content DESC, digest DESC
), ordered AS (
    SELECT *,
           row_number() OVER (PARTITION BY payment, CASE kind WHEN 's' THEN 'd' ELSE kind END, dated
                              ORDER BY effective_at DESC, rank DESC,
                                       key_revision_at DESC, key_revision_seq DESC, key DESC) AS place
      FROM represented
), state AS (
    -- The greatest snapshot or delta: dated and undated found apart, the higher rank wins, the dated one on a tie.
    SELECT DISTINCT ON (payment) payment, key, status, rank, effective_at
      FROM ordered
     WHERE kind IN ('s', 'd') AND place = 1
     ORDER BY payment, rank DESC, dated DESC
), snapshots AS (
    SELECT DISTINCT ON (payment, dated) *
      FROM ordered
     WHERE kind = 's'
     ORDER BY payment, dated, place
), lead AS (
    -- Who gives the asset: the greatest snapshot; where there is none yet, the greatest delta, absolute, overlay.
    SELECT DISTINCT ON (payment) *
      FROM (SELECT 0 AS choice, * FROM snapshots
            UNION ALL
            SELECT CASE kind WHEN 'a' THEN 2 WHEN 'o' THEN 3 ELSE 1 END, * FROM ordered WHERE place = 1) AS candidates
     ORDER BY payment, choice, rank DESC, dated DESC
), absolutes AS (
    -- The newest absolute in the payment's asset; an undated one stands before everything dated.
    SELECT DISTINCT ON (o.payment) o.payment, o.amount, o.effective_at
      FROM ordered o JOIN lead ON lead.payment = o.payment AND lead.asset = o.asset
     WHERE o.kind = 'a'
     ORDER BY o.payment, o.dated DESC, o.place
), counted AS (
    SELECT r.payment,
           count(*) AS adjustments,
           min(r.effective_at) AS created_at,
           bool_or(r.conflicting) AS conflicting_amounts,
           bool_or(r.asset <> lead.asset) AS asset_mismatch,
           max(r.rank) FILTER (WHERE r.kind = 'o') AS dispute,
           max(r.scheme COLLATE "C") AS scheme,
           coalesce(sum(r.sign * r.amount) FILTER (WHERE moves), 0) AS deltas,
           coalesce(bool_or(r.sign < 0) FILTER (WHERE moves), false) AS subtracted
      FROM represented r
      JOIN lead ON lead.payment = r.payment
      LEFT JOIN absolutes a ON a.payment = r.payment,
           LATERAL (SELECT r.kind = 'd' AND r.asset = lead.asset
                       AND (a.payment IS NULL OR a.effective_at IS NULL OR r.effective_at IS NULL
                            OR r.effective_at > a.effective_at) AS moves) AS m
     GROUP BY r.payment
), folded AS (
    SELECT c.payment,
           state.key AS status_key,
           CASE lead.kind WHEN 's' THEN lead.amount END AS initial_amount,
           state.effective_at AS status_at,
           c.created_at,
           c.adjustments::integer AS adjustments,
           coalesce(state.rank, 0::smallint) AS status_rank,
           lead.kind <> 's' AS awaiting_original,
           c.subtracted AND (lead.kind = 's' OR a.payment IS NOT NULL) AND total.amount < 0 AS over_refund,
           c.conflicting_amounts,
           c.asset_mismatch,
           total.amount,
           coalesce(state.status, 'unknown') AS status,
           CASE c.dispute WHEN 1 THEN 'dispute' WHEN 2 THEN 'dispute_won' WHEN 3 THEN 'dispute_lost' END AS dispute,
           lead.asset,
           CASE lead.scheme WHEN '' THEN c.scheme ELSE lead.scheme END AS scheme,
           lead.provider, lead.type, lead.original AS reference
      FROM counted c
      JOIN lead ON lead.payment = c.payment
      LEFT JOIN state ON state.payment = c.payment
      LEFT JOIN absolutes a ON a.payment = c.payment,
           LATERAL (SELECT coalesce(a.amount, CASE WHEN lead.moved THEN lead.amount END, 0) + c.deltas AS amount) AS total
)


-- name: apply_records
-- The slice's one statement after the lock. Digests are unique within it. Returns one row of counts.
WITH input AS (
    SELECT *
      FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::uuid[], $10::bigint[], $11::timestamptz[],
                  $12::timestamptz[], $13::bigint[], $14::bigint[], $15::integer[], $16::smallint[], $17::smallint[],
                  $18::"char"[], $19::boolean[], $20::text[], $21::text[], $22::text[], $23::text[], $24::text[], $25::text[],
                  $26::text[], $27::text[], $28::text[], $29::text[], $30::text[], $31::text[], $32::bigint[], $33::bigint[])
           WITH ORDINALITY
           AS given (digest, payment, key, content, run, connector, amount, effective_at,
                     revision_at, revision_seq, log_offset, line, rank, sign,
                     kind, moved, status, asset, scheme, provider, type, reference,
                     parent_reference, event_id, source_object, position, path, raw, high, low, n)
     -- What was counted dead stays dead: a redrive comes under a run of its own.
     WHERE NOT EXISTS (SELECT FROM {schema}.event_deaths d WHERE d.run = given.run AND d.digest = given.digest)
), inserted AS (
    INSERT INTO {schema}.payment_events
           (digest, payment, key, content, run, connector, amount, effective_at, revision_at, revision_seq, log_offset,
            log_partition, line, rank, sign, kind, moved, status, asset, scheme, provider, type, reference, parent_reference,
            event_id, topic, source_object, position, path, raw)
    SELECT digest, payment, key, content, run, connector, amount, effective_at, revision_at, revision_seq, log_offset,
           $2, line, rank, sign, kind, moved, status, asset, scheme, provider, type, reference, parent_reference,
           event_id, $1, source_object, position, path, raw
      FROM input
     ORDER BY n
        ON CONFLICT (digest) DO NOTHING
    RETURNING digest, payment, key, content, kind, status, rank, sign, moved, amount, asset, scheme, effective_at,
              revision_at, revision_seq, provider, type, coalesce(parent_reference, reference) AS original, run, ordinal
), known AS (
    SELECT e.digest, e.payment, e.key, e.content, e.kind, e.status, e.rank, e.sign, e.moved, e.amount, e.asset, e.scheme,
           e.effective_at, e.revision_at, e.revision_seq, e.provider, e.type,
           coalesce(e.parent_reference, e.reference) AS original
      FROM (SELECT DISTINCT payment FROM inserted) touched
      JOIN {schema}.payment_events e ON e.payment = touched.payment
), event_rows AS (
    SELECT *, 0::bigint AS arrival FROM known
    UNION ALL
    SELECT digest, payment, key, content, kind, status, rank, sign, moved, amount, asset, scheme, effective_at,
           revision_at, revision_seq, provider, type, original, ordinal
      FROM inserted
), {fold}, stored AS (
    INSERT INTO {schema}.payments AS p
           (payment, status_key, initial_amount, status_at, created_at, adjustments, status_rank, awaiting_original,
            over_refund, conflicting_amounts, asset_mismatch, amount, status, dispute, asset, scheme, provider, type,
            reference, id)
    SELECT payment, status_key, initial_amount, status_at, created_at, adjustments, status_rank, awaiting_original,
           over_refund, conflicting_amounts, asset_mismatch, amount, status, dispute, asset, scheme, provider, type,
           reference, {payment_id}
      FROM folded
        ON CONFLICT (payment) DO UPDATE
       SET status_key = excluded.status_key, initial_amount = excluded.initial_amount, status_at = excluded.status_at,
           created_at = excluded.created_at, adjustments = excluded.adjustments, status_rank = excluded.status_rank,
           awaiting_original = excluded.awaiting_original, over_refund = excluded.over_refund,
           conflicting_amounts = excluded.conflicting_amounts, asset_mismatch = excluded.asset_mismatch,
           amount = excluded.amount, status = excluded.status, dispute = excluded.dispute, asset = excluded.asset,
           scheme = excluded.scheme, updated_at = now()
     WHERE (p.status_key, p.initial_amount, p.status_at, p.created_at, p.adjustments, p.status_rank, p.awaiting_original,
            p.over_refund, p.conflicting_amounts, p.asset_mismatch, p.amount, p.status, p.dispute, p.asset, p.scheme)
           IS DISTINCT FROM
           (excluded.status_key, excluded.initial_amount, excluded.status_at, excluded.created_at, excluded.adjustments,
            excluded.status_rank, excluded.awaiting_original, excluded.over_refund, excluded.conflicting_amounts,
            excluded.asset_mismatch, excluded.amount, excluded.status, excluded.dispute, excluded.asset, excluded.scheme)
), applied AS (
    -- The first event of a key that nobody knew.
    SELECT DISTINCT ON (i.payment, i.key) i.digest, i.payment, i.key
      FROM inserted i
     WHERE NOT EXISTS (SELECT FROM known k WHERE k.payment = i.payment AND k.key = i.key)
     ORDER BY i.payment, i.key, i.ordinal
), other AS (
    SELECT g.digest, g.run, g.log_offset, e.run AS known_run
      FROM input g LEFT JOIN {schema}.payment_events e ON e.digest = g.digest
     WHERE NOT EXISTS (SELECT FROM inserted i WHERE i.digest = g.digest)
), repeated AS (
    INSERT INTO {schema}.event_repeats (run, digest, log_offset, log_partition, topic)
    SELECT run, digest, log_offset, $2, $1
      FROM other
     WHERE known_run <> run
        ON CONFLICT (run, digest) DO NOTHING
    RETURNING run, digest
), outcomes AS (
    SELECT i.digest, i.run, CASE WHEN a.digest IS NULL THEN 'duplicate' ELSE 'applied' END AS outcome
      FROM inserted i LEFT JOIN applied a ON a.digest = i.digest
    UNION ALL
    SELECT digest, run, 'duplicate' FROM repeated
), ledger AS (
    INSERT INTO {schema}.run_ledger AS l (run, log_partition, topic, outcome, events, digest_sum)
    SELECT o.run, $2, $1, o.outcome, count(*),
           -- Digests come as two signed halves: their sum modulo 2^128.
           mod(mod(sum(g.high) * 18446744073709551616 + sum(g.low) + 18446744073709551616 * count(*) FILTER (WHERE g.low < 0),
                   340282366920938463463374607431768211456)
               + 340282366920938463463374607431768211456, 340282366920938463463374607431768211456)
      FROM outcomes o JOIN input g ON g.digest = o.digest
     GROUP BY o.run, o.outcome
        ON CONFLICT (run, topic, log_partition, outcome) DO UPDATE
       SET events = l.events + excluded.events,
           digest_sum = mod(l.digest_sum + excluded.digest_sum, 340282366920938463463374607431768211456),
           updated_at = now()
), offsets AS (
    INSERT INTO {schema}.sink_offsets AS s (log_partition, topic, next_offset)
    SELECT $2, $1, $3 WHERE $3::bigint IS NOT NULL
        ON CONFLICT (topic, log_partition) DO UPDATE
       SET next_offset = excluded.next_offset, updated_at = now()
     WHERE excluded.next_offset > s.next_offset
), running AS (
    -- Which of the new adjustments was the state when it arrived: the best dated and undated so far, as place * 1000 + rank.
    SELECT o.key, o.payment, o.place, o.rank, o.dated, o.arrival,
           min(o.place * 1000 + o.rank) FILTER (WHERE o.dated) OVER so_far AS best_dated,
           min(o.place * 1000 + o.rank) FILTER (WHERE NOT o.dated) OVER so_far AS best_undated
      FROM ordered o
     WHERE o.kind IN ('s', 'd')
    WINDOW so_far AS (PARTITION BY o.payment ORDER BY o.arrival)
)
SELECT (SELECT count(*) FROM applied) AS applied,
       (SELECT count(*) FROM outcomes WHERE outcome = 'duplicate') AS duplicate,
       (SELECT count(*) FROM running
         WHERE arrival > 0
           AND NOT CASE WHEN dated
                        THEN best_dated / 1000 = place AND coalesce(best_undated % 1000 <= rank, true)
                        ELSE best_undated / 1000 = place AND coalesce(best_dated % 1000 < rank, true) END) AS stale,
       -- Inserted by another partition's transaction after our snapshot: the caller starts again.
       (SELECT count(*) FROM other WHERE known_run IS NULL) AS unseen;


-- name: payment_id
-- Seed 000's id from provider, reference, type: padded base64url of canonical JSON. schemas/identity.py says the same.
translate(encode(convert_to('{"provider":' || to_json(provider) || ',"reference":' || to_json(reference) || ',"type":"'
                            || type || '"}', 'UTF8'), 'base64'), E'+/\n', '-_')


-- name: count_dead
-- Records whose letters are durable, each once per (run, event id), and only where that pair has no outcome yet.
WITH input AS (
    SELECT *
      FROM unnest($4::uuid[], $5::uuid[], $6::bigint[], $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[])
           AS given (digest, run, log_offset, event_id, letter_id, reason, high, low)
), died AS (
    INSERT INTO {schema}.event_deaths (run, digest, log_offset, log_partition, topic, event_id, letter_id, reason)
    SELECT run, digest, log_offset, $2, $1, event_id, letter_id, reason
      FROM input g
     WHERE NOT EXISTS (SELECT FROM {schema}.payment_events e WHERE e.digest = g.digest AND e.run = g.run)
       AND NOT EXISTS (SELECT FROM {schema}.event_repeats r WHERE r.digest = g.digest AND r.run = g.run)
        ON CONFLICT (run, digest) DO NOTHING
    RETURNING run, digest
), ledger AS (
    INSERT INTO {schema}.run_ledger AS l (run, log_partition, topic, outcome, events, digest_sum)
    SELECT d.run, $2, $1, 'dead', count(*),
           mod(mod(sum(g.high) * 18446744073709551616 + sum(g.low) + 18446744073709551616 * count(*) FILTER (WHERE g.low < 0),
                   340282366920938463463374607431768211456)
               + 340282366920938463463374607431768211456, 340282366920938463463374607431768211456)
      FROM died d JOIN input g ON g.digest = d.digest AND g.run = d.run
     GROUP BY d.run
        ON CONFLICT (run, topic, log_partition, outcome) DO UPDATE
       SET events = l.events + excluded.events,
           digest_sum = mod(l.digest_sum + excluded.digest_sum, 340282366920938463463374607431768211456),
           updated_at = now()
), offsets AS (
    INSERT INTO {schema}.sink_offsets AS s (log_partition, topic, next_offset)
    SELECT $2, $1, $3 WHERE $3::bigint IS NOT NULL
        ON CONFLICT (topic, log_partition) DO UPDATE
       SET next_offset = excluded.next_offset, updated_at = now()
     WHERE excluded.next_offset > s.next_offset
)
SELECT (SELECT count(*) FROM died) AS dead;


-- name: advance_offset
-- A slice without a record that anybody counts, such as one of tombstones dead-lettered before, still moves forward.
INSERT INTO {schema}.sink_offsets AS s (log_partition, topic, next_offset)
VALUES ($2, $1, $3)
    ON CONFLICT (topic, log_partition) DO UPDATE
   SET next_offset = excluded.next_offset, updated_at = now()
 WHERE excluded.next_offset > s.next_offset;


-- name: next_offsets
SELECT log_partition, next_offset FROM {schema}.sink_offsets WHERE topic = $1;


-- name: is_counted
SELECT EXISTS (SELECT FROM {schema}.payment_events WHERE digest = $1 AND run = $2)
    OR EXISTS (SELECT FROM {schema}.event_repeats WHERE digest = $1 AND run = $2)
    OR EXISTS (SELECT FROM {schema}.event_deaths WHERE digest = $1 AND run = $2) AS counted;
