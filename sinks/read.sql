-- What people ask of payments.


-- name: list_payments
-- Newest first. `$1` provider, `$2` status, each null for any; `$3` lists what stands after that place, null from the beginning;
-- `$4` how many.
SELECT *
  FROM {schema}.payments
 WHERE ($1::text IS NULL OR provider = $1)
   AND ($2::text IS NULL OR status = $2)
   AND ($3::bigint IS NULL OR ordinal < $3)
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
