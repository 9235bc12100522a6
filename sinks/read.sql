-- What people ask of payments.


-- name: list_payments
-- Newest first, out of the `$5` (null: all) that stand after the place `$3` (null: the beginning), so that a filter that matches
-- little takes no longer than one that matches all. `$1` provider, `$2` status, each null for any; `$4` how many.
SELECT *
  FROM (SELECT * FROM {schema}.payments WHERE $3::bigint IS NULL OR ordinal < $3 ORDER BY ordinal DESC LIMIT $5) p
 WHERE ($1::text IS NULL OR provider = $1)
   AND ($2::text IS NULL OR status = $2)
 ORDER BY ordinal DESC
 LIMIT $4;


-- name: payments_of_reference
-- Newest first, by the index on references: `$1` original reference, `$2` status, null for any; `$3` and `$4` as above.
SELECT *
  FROM {schema}.payments
 WHERE reference = $1 AND ($2::text IS NULL OR status = $2) AND ($3::bigint IS NULL OR ordinal < $3)
 ORDER BY ordinal DESC
 LIMIT $4;


-- name: find_payments
-- By their digests.
SELECT * FROM {schema}.payments WHERE payment = ANY ($1) ORDER BY ordinal DESC;


-- name: list_adjustments
-- Of some payments, newest first, each with its representative event and where that came from.
SELECT a.*, o.connector, o.source_object, o.path, o.topic, o.log_partition, s.name AS connector_name
  FROM {schema}.adjustments a
  LEFT JOIN {schema}.event_origins o ON o.id = a.origin
  LEFT JOIN {schema}.connectors s ON s.id = o.connector
 WHERE a.payment = ANY ($1)
 ORDER BY a.payment, a.effective_at DESC NULLS LAST, a.rank DESC, a.key_revision_at DESC, a.key_revision_seq DESC, a.key DESC;


-- name: list_events
-- Every event of a payment in the order of arrival, with its lineage.
SELECT e.digest, e.event_id, e.key, e.status, e.amount, e.asset, e.effective_at, e.revision_at, e.revision_seq, e.run, e.line,
       e.position, e.log_offset, e.first_seen_at, e.raw, o.connector, o.source_object, o.path, o.topic, o.log_partition,
       e.ordinal = min(e.ordinal) OVER (PARTITION BY e.key) AS applied
  FROM {schema}.payment_events e
  LEFT JOIN {schema}.event_origins o ON o.id = e.origin
 WHERE e.payment = $1
 ORDER BY e.ordinal;


-- name: wanted_payments
WHERE ($3::text IS NULL OR provider = $3)
   AND ($4::text IS NULL OR status = $4)
   AND ($5::text IS NULL OR type = $5)
   AND ($6::text IS NULL OR asset = $6)
   AND ($7::text IS NULL OR reference = $7)
   AND ($9::timestamptz IS NULL OR created_at >= $9)
   AND ($10::timestamptz IS NULL OR created_at < $10)
   AND ($8::uuid IS NULL OR EXISTS (SELECT FROM {schema}.payment_events e JOIN {schema}.event_origins o ON o.id = e.origin
                                     WHERE e.payment = p.payment AND o.connector = $8))


-- name: page_payments
-- Newest first, out of the `$2` that stand after the place `$1` (null: the beginning), so that a filter that matches little takes
-- no longer than one that matches all. `$3` provider, `$4` status, `$5` type, `$6` asset, `$7` original reference, `$8` a connector
-- that brought an event of it, `$9` and `$10` its own instant, from and before; each null for any. `$11` how many.
SELECT *
  FROM (SELECT * FROM {schema}.payments WHERE $1::bigint IS NULL OR ordinal < $1 ORDER BY ordinal DESC LIMIT $2) p
 {wanted_payments}
 ORDER BY ordinal DESC
 LIMIT $11;


-- name: page_payments_of_reference
-- As above, out of those of the reference `$7`: an index finds them.
SELECT *
  FROM (SELECT * FROM {schema}.payments WHERE reference = $7 AND ($1::bigint IS NULL OR ordinal < $1)
         ORDER BY ordinal DESC LIMIT $2) p
 {wanted_payments}
 ORDER BY ordinal DESC
 LIMIT $11;


-- name: page_end
-- The place of the `$2`th payment after the place `$1`; none where there are fewer.
SELECT ordinal FROM {schema}.payments WHERE $1::bigint IS NULL OR ordinal < $1 ORDER BY ordinal DESC OFFSET $2 - 1 LIMIT 1;
