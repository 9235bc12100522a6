-- The sink's statements. `sinks/statement.py` reads this file: {schema} is the schema they work in, {meanings} the table of
-- statuses in schemas/payment.py, any other {name} the block of that name. Nothing of a payment ever becomes SQL text:
-- every value is a parameter.


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
    SELECT DISTINCT ON (payment, dated)
           payment, rank, dated, kind, moved, amount, asset, scheme, provider, type, original
      FROM ordered
     WHERE kind = 's'
     ORDER BY payment, dated, place
), lead AS (
    -- Who gives the asset: the greatest snapshot; where there is none yet, the greatest delta, absolute, overlay.
    SELECT DISTINCT ON (payment) *
      FROM (SELECT 0 AS choice, * FROM snapshots
            UNION ALL
            SELECT CASE kind WHEN 'a' THEN 2 WHEN 'o' THEN 3 ELSE 1 END,
                   payment, rank, dated, kind, moved, amount, asset, scheme, provider, type, original
              FROM ordered
             WHERE place = 1) AS candidates
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
      FROM ordered r
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


-- name: payment_columns
payment, status_key, initial_amount, status_at, created_at, adjustments, status_rank, awaiting_original, over_refund,
conflicting_amounts, asset_mismatch, amount, status, dispute, asset, scheme, provider, type, reference, id


-- name: busy
-- Payments that need the whole fold. The rest were first seen just now, in one event.
busy AS (
    SELECT payment FROM known
    UNION ALL
    SELECT payment FROM inserted GROUP BY payment HAVING count(*) > 1
)


-- name: all_busy
busy AS (
    SELECT payment FROM inserted
)


-- name: stored
-- Payments as `states` has them, written where they differ from what is there.
stored AS (
    INSERT INTO {schema}.payments AS p ({payment_columns})
    SELECT *, {payment_id}
      FROM states
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
    RETURNING p.payment
)


-- name: apply_records
-- The slice's one statement after the lock. Digests are unique within it. Returns one row of counts; where `reused` names
-- offsets, their event ids stand for other records already, and the caller rolls back.
-- Real tables are probed by `= ANY (array)` alone, and what is in memory is looked up by hashed subplans: the plan is the
-- same for every size of table and slice (docs/decisions, "The sink's statement").
WITH given AS (
    SELECT t.digest, t.payment, t.key, t.content, ($7::uuid[])[t.batch] AS run, ($8::uuid[])[t.batch] AS origin, t.amount,
           t.effective_at, ($9::timestamptz[])[t.batch] AS revision_at, ($10::bigint[])[t.batch] AS revision_seq,
           t.log_offset, t.line, ($11::smallint[])[t.facet] AS meaning, ($12::text[])[t.facet] AS asset,
           ($13::text[])[t.facet] AS scheme, ($14::text[])[t.facet] AS provider, ($15::text[])[t.facet] AS type,
           t.reference, t.parent_reference, t.event_id, t.position, t.raw, t.high, t.low
      FROM unnest($16::smallint[], $17::smallint[], $18::uuid[], $19::uuid[], $20::uuid[], $21::uuid[], $22::bigint[],
                  $23::timestamptz[], $24::bigint[], $25::integer[], $26::text[], $27::text[], $28::text[], $29::text[],
                  $30::text[], $31::bigint[], $32::bigint[])
           AS t (batch, facet, digest, payment, key, content, amount,
                 effective_at, log_offset, line, reference, parent_reference, event_id, position,
                 raw, high, low)
), deaths AS (
    SELECT digest, run, content, content = {not_decoded} AS unknown,
           CASE WHEN topic = $1 AND log_partition = $2 THEN log_offset END AS log_offset
      FROM {schema}.event_deaths
     WHERE digest = ANY ($18)
), input AS (
    -- What was counted dead stays dead: a redrive comes under a run of its own.
    SELECT *
      FROM given
     WHERE (digest, run, content) NOT IN (SELECT digest, run, content FROM deaths)
       AND (digest, run) NOT IN (SELECT digest, run FROM deaths WHERE unknown)
), origins AS (
    INSERT INTO {schema}.event_origins (id, connector, source_object, path, topic, log_partition)
    SELECT id, connector, source_object, path, $1, $2
      FROM unnest($8::uuid[], $4::uuid[], $5::text[], $6::text[]) AS o (id, connector, source_object, path)
        ON CONFLICT (id) DO NOTHING
), inserted AS (
    INSERT INTO {schema}.payment_events
           (digest, payment, key, content, run, origin, amount, effective_at, revision_at, revision_seq, log_offset, line,
            rank, sign, kind, moved, status, asset, scheme, provider, type, reference, parent_reference, event_id, position,
            raw)
    SELECT digest, payment, key, content, run, origin, amount, effective_at, revision_at, revision_seq, log_offset, line,
           {meanings}, asset, scheme, provider, type, reference, parent_reference, event_id, position, raw
      FROM input
        ON CONFLICT (digest) DO NOTHING
    RETURNING digest, payment, key, content, kind, status, rank, sign, moved, amount, asset, scheme, effective_at,
              revision_at, revision_seq, provider, type, coalesce(parent_reference, reference) AS original, ordinal
), known AS (
    SELECT digest, payment, key, content, kind, status, rank, sign, moved, amount, asset, scheme, effective_at,
           revision_at, revision_seq, provider, type, coalesce(parent_reference, reference) AS original
      FROM {schema}.payment_events
     WHERE payment = ANY (ARRAY (SELECT payment FROM inserted))
), {busy}, event_rows AS (
    SELECT *, 0::bigint AS arrival FROM known
    UNION ALL
    SELECT * FROM inserted WHERE payment IN (SELECT payment FROM busy)
), {fold}, single AS (
    -- The fold of a set of one, spelled out.
    SELECT payment,
           CASE WHEN kind IN ('s', 'd') THEN key END AS status_key,
           CASE kind WHEN 's' THEN amount END AS initial_amount,
           CASE WHEN kind IN ('s', 'd') THEN effective_at END AS status_at,
           effective_at AS created_at,
           1 AS adjustments,
           CASE WHEN kind IN ('s', 'd') THEN rank ELSE 0::smallint END AS status_rank,
           kind <> 's' AS awaiting_original,
           false AS over_refund,
           false AS conflicting_amounts,
           false AS asset_mismatch,
           CASE kind WHEN 's' THEN CASE WHEN moved THEN amount ELSE 0 END
                     WHEN 'd' THEN sign * amount
                     WHEN 'a' THEN amount
                     ELSE 0 END::numeric AS amount,
           CASE WHEN kind IN ('s', 'd') THEN status ELSE 'unknown' END AS status,
           CASE kind WHEN 'o' THEN status END AS dispute,
           asset, scheme, provider, type, original AS reference
      FROM inserted
     WHERE payment NOT IN (SELECT payment FROM busy)
), first_seen AS (
    -- A plain insert costs half of an upsert. Where the row is there after all, it fails, and the slice is applied again by
    -- `apply_carefully`, for which every payment is busy: another partition's transaction wrote it just now, or a hand did.
    INSERT INTO {schema}.payments ({payment_columns}) SELECT *, {payment_id} FROM single
), states AS (
    SELECT * FROM folded
), {stored}, first AS (
    -- Of the busy payments' new events: the first of each key that nobody knew.
    SELECT DISTINCT ON (payment, key) digest
      FROM event_rows
     WHERE arrival > 0 AND (payment, key) NOT IN (SELECT payment, key FROM known)
     ORDER BY payment, key, arrival
), other AS (
    SELECT digest, run, log_offset, content, payment, reference, parent_reference, ({statuses})[meaning] AS status, amount,
           asset, scheme, effective_at
      FROM input
     WHERE digest NOT IN (SELECT digest FROM inserted)
), standing AS (
    SELECT digest, run, content, payment, reference, parent_reference, status, amount, asset, scheme, effective_at
      FROM {schema}.payment_events
     WHERE digest = ANY (ARRAY (SELECT digest FROM other))
), reused AS (
    -- The id is known, and stands for other facts of a payment (`facts` in sinks/base.py).
    SELECT o.log_offset
      FROM other o JOIN standing s ON s.digest = o.digest
     WHERE s.content <> o.content
       AND (s.payment, s.reference, s.parent_reference, s.status, s.amount, s.asset, s.scheme, s.effective_at)
           IS DISTINCT FROM
           (o.payment, o.reference, o.parent_reference, o.status, o.amount, o.asset, o.scheme, o.effective_at)
    UNION ALL
    -- Or a record that nobody could decode died under it, elsewhere: this one is not that one.
    SELECT g.log_offset
      FROM unnest($16::smallint[], $18::uuid[], $21::uuid[], $24::bigint[]) AS g (batch, digest, content, log_offset)
      JOIN deaths d ON d.digest = g.digest AND d.run = ($7::uuid[])[g.batch]
     WHERE d.unknown
       AND d.log_offset IS DISTINCT FROM g.log_offset
       AND (g.digest, d.run, g.content) NOT IN (SELECT digest, run, content FROM deaths)
), repeated AS (
    INSERT INTO {schema}.event_repeats (digest, run, log_offset, log_partition, topic)
    SELECT o.digest, o.run, o.log_offset, $2, $1
      FROM other o JOIN standing s ON s.digest = o.digest
     WHERE s.run <> o.run
       AND o.run NOT IN (SELECT run FROM {schema}.pruned_repeats WHERE run = ANY ($7))
        ON CONFLICT (digest, run) DO NOTHING
    RETURNING digest
), duplicate AS (
    SELECT digest FROM event_rows WHERE arrival > 0 AND digest NOT IN (SELECT digest FROM first)
    UNION ALL
    SELECT digest FROM repeated
), outcomes AS (
    SELECT run, outcome, count(*) AS events, sum(high) AS high, sum(low) AS low, count(*) FILTER (WHERE low < 0) AS negative
      FROM (SELECT run, high, low,
                   CASE WHEN digest IN (SELECT digest FROM duplicate) THEN 'duplicate'
                        WHEN digest IN (SELECT digest FROM inserted) THEN 'applied' END AS outcome
              FROM input) AS decided
     GROUP BY run, outcome
    HAVING outcome IS NOT NULL  -- in WHERE, the planner would decide twice
), ledger AS (
    INSERT INTO {schema}.run_ledger AS l (run, log_partition, topic, outcome, events, digest_sum)
    SELECT run, $2, $1, outcome, events, {digest_sum}
      FROM outcomes
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
    -- Was a new adjustment the state when it arrived? The best dated and undated so far, as place * 1000 + rank.
    SELECT place, rank, dated, arrival,
           min(place * 1000 + rank) FILTER (WHERE dated) OVER so_far AS best_dated,
           min(place * 1000 + rank) FILTER (WHERE NOT dated) OVER so_far AS best_undated
      FROM ordered
     WHERE kind IN ('s', 'd')
    WINDOW so_far AS (PARTITION BY payment ORDER BY arrival)
)
SELECT (SELECT coalesce(sum(events), 0) FROM outcomes WHERE outcome = 'applied')::bigint AS applied,
       (SELECT coalesce(sum(events), 0) FROM outcomes WHERE outcome = 'duplicate')::bigint AS duplicate,
       (SELECT count(*)
          FROM running
         WHERE arrival > 0
           AND NOT CASE WHEN dated
                        THEN best_dated / 1000 = place AND coalesce(best_undated % 1000 <= rank, true)
                        ELSE best_undated / 1000 = place AND coalesce(best_dated % 1000 < rank, true) END) AS stale,
       -- Inserted by another partition's transaction after our snapshot: the caller starts again.
       (SELECT count(*) FROM other WHERE digest NOT IN (SELECT digest FROM standing)) AS unseen,
       ARRAY (SELECT log_offset FROM reused) AS reused,
       -- What was folded over; `count_events` tells whether that was all.
       ARRAY (SELECT payment FROM folded) AS payments,
       (SELECT count(*) FROM event_rows) AS folded,
       (SELECT next_offset FROM {schema}.sink_offsets WHERE topic = $1 AND log_partition = $2) AS reached;


-- name: count_events
-- Event rows of payments just folded, whose rows are locked by now. More than were folded: a foreign partitioner put events
-- of one payment into several partitions, and another partition's transaction came in between.
SELECT count(*) FROM {schema}.payment_events WHERE payment = ANY ($1);


-- name: digest_sum
-- Digests come as two signed halves: their sum modulo 2^128 from the halves' sums.
mod(mod(high * 18446744073709551616 + low + 18446744073709551616 * negative, 340282366920938463463374607431768211456)
    + 340282366920938463463374607431768211456, 340282366920938463463374607431768211456)


-- name: payment_id
-- Seed 000's id from provider, reference, type: padded base64url of canonical JSON. schemas/identity.py says the same.
-- Three replaces: one translate takes three times as long.
replace(replace(replace(encode(convert_to('{"provider":' || to_json(provider) || ',"reference":' || to_json(reference)
                                          || ',"type":"' || type || '"}', 'UTF8'), 'base64'),
                        E'\n', ''), '+', '-'), '/', '_')


-- name: count_dead
-- Records whose letters are durable, each once per (run, event id, content); one that was not decoded only where its pair
-- has no outcome yet.
WITH input AS (
    SELECT *
      FROM unnest($4::uuid[], $5::uuid[], $6::uuid[], $7::bigint[], $8::text[], $9::text[], $10::text[], $11::bigint[],
                  $12::bigint[])
           AS given (digest, run, content, log_offset, event_id, letter_id, reason, high, low)
), counted AS (
    SELECT digest, run, content FROM {schema}.payment_events WHERE digest = ANY ($4)
    UNION ALL
    SELECT r.digest, r.run, e.content
      FROM {schema}.event_repeats r JOIN {schema}.payment_events e ON e.digest = r.digest
     WHERE r.digest = ANY ($4) AND e.digest = ANY ($4)
), died AS (
    INSERT INTO {schema}.event_deaths (digest, run, content, log_offset, log_partition, topic, event_id, letter_id, reason)
    SELECT digest, run, content, log_offset, $2, $1, event_id, letter_id, reason
      FROM input
     WHERE (digest, run, content) NOT IN (SELECT digest, run, content FROM counted)
       AND (content <> {not_decoded} OR (digest, run) NOT IN (SELECT digest, run FROM counted))
       AND run NOT IN (SELECT run FROM {schema}.pruned_repeats WHERE run = ANY ($5))
        ON CONFLICT (digest, run, content) DO NOTHING
    RETURNING digest, run, content
), outcomes AS (
    SELECT d.run, count(*) AS events, sum(g.high) AS high, sum(g.low) AS low,
           count(*) FILTER (WHERE g.low < 0) AS negative
      FROM died d JOIN input g ON g.digest = d.digest AND g.run = d.run AND g.content = d.content
     GROUP BY d.run
), ledger AS (
    INSERT INTO {schema}.run_ledger AS l (run, log_partition, topic, outcome, events, digest_sum)
    SELECT run, $2, $1, 'dead', events, {digest_sum}
      FROM outcomes
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
SELECT (SELECT count(*) FROM died) AS dead,
       (SELECT next_offset FROM {schema}.sink_offsets WHERE topic = $1 AND log_partition = $2) AS reached;


-- name: advance_offset
-- A slice without a record that anybody counts, such as one of tombstones dead-lettered before, still moves forward.
INSERT INTO {schema}.sink_offsets AS s (log_partition, topic, next_offset)
VALUES ($2, $1, $3)
    ON CONFLICT (topic, log_partition) DO UPDATE
   SET next_offset = excluded.next_offset, updated_at = now()
 WHERE excluded.next_offset > s.next_offset;


-- name: reached
-- How far the partition is stored; before this transaction's own write, in the statement that writes.
SELECT next_offset AS reached FROM {schema}.sink_offsets WHERE topic = $1 AND log_partition = $2;


-- name: next_offsets
SELECT log_partition, next_offset FROM {schema}.sink_offsets WHERE topic = $1;


-- name: is_counted
-- Whether the record with digest `$1`, run `$2` and content `$3`, at `$4`/`$5`/`$6`, has an outcome.
SELECT EXISTS (SELECT
                 FROM {schema}.payment_events e
                WHERE e.digest = $1 AND e.content = $3
                  AND (e.run = $2 OR EXISTS (SELECT FROM {schema}.event_repeats WHERE digest = $1 AND run = $2)
                                OR EXISTS (SELECT FROM {schema}.pruned_repeats WHERE run = $2)))
    OR EXISTS (SELECT
                 FROM {schema}.event_deaths
                WHERE digest = $1 AND run = $2
                  AND (content = $3 OR (content = {not_decoded}
                                        AND topic = $4 AND log_partition = $5 AND log_offset = $6))) AS counted;


-- name: not_decoded
-- The content of what died before anybody knew what it says.
'00000000-0000-0000-0000-000000000000'::uuid
