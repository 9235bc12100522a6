-- The list of dead letters: what the letters role writes, and what `till ledger verify` asks of it.


-- name: letter_content
-- Everything that a letter says, as 16 bytes: whoever alters its row afterwards is found. Key and value by their hashes.
encode(substr(sha256(convert_to(
    ROW(id, stage, reason, message, hint, attempts, extract(epoch FROM failed_at), event_id, run_id, connector_id, connector,
        topic, log_partition, log_offset, path, position, line, source_object, encode(sha256(key), 'hex'),
        encode(sha256(value), 'hex'), headers::text, size_bytes, sha256, truncated, sqlstate, letter_partition,
        letter_offset)::text, 'UTF8')), 1, 16), 'hex')::uuid


-- name: put_letter
-- List a letter. One that is listed already is noted under this run, if another run had it first.
WITH given AS (
    SELECT $1::text AS id, $2::text AS stage, $3::text AS reason, $4::text AS message, $5::text AS hint,
           $6::integer AS attempts, $7::timestamptz AS failed_at, $8::text AS event_id, $9::uuid AS run_id,
           $10::uuid AS connector_id, $11::text AS connector, $12::text AS topic, $13::integer AS log_partition,
           $14::bigint AS log_offset, $15::text AS path, $16::text AS position, $17::integer AS line,
           $18::text AS source_object, $19::bytea AS key, $20::bytea AS value, $21::json AS headers,
           $22::bigint AS size_bytes, $23::text AS sha256, $24::boolean AS truncated, $25::text AS sqlstate,
           $26::integer AS letter_partition, $27::bigint AS letter_offset
), listed AS (
    INSERT INTO {schema}.dead_letters
           (id, stage, reason, message, hint, attempts, failed_at, event_id, run_id, connector_id, connector, topic,
            log_partition, log_offset, path, position, line, source_object, key, value, headers, size_bytes, sha256,
            truncated, sqlstate, letter_partition, letter_offset, content)
    SELECT *, {letter_content} FROM given
        ON CONFLICT (id) DO NOTHING
    RETURNING id
)
INSERT INTO {schema}.letter_repeats (letter, run, letter_partition, letter_offset)
SELECT id, run_id, letter_partition, letter_offset
  FROM given
 WHERE run_id IS NOT NULL AND NOT EXISTS (SELECT FROM listed)
   AND NOT EXISTS (SELECT FROM {schema}.dead_letters l WHERE l.id = given.id AND l.run_id = given.run_id)
    ON CONFLICT (letter, run) DO NOTHING;


-- name: next_letter_offsets
SELECT letter_partition, max(letter_offset) + 1 AS next_offset
  FROM (SELECT letter_partition, letter_offset FROM {schema}.dead_letters
        UNION ALL
        SELECT letter_partition, letter_offset FROM {schema}.letter_repeats) AS places
 GROUP BY 1;


-- name: letter_digest
-- The digest of a letter's event id: schemas/identity.py.
encode(substr(sha256(convert_to(event_id, 'UTF8')), 1, 16), 'hex')::uuid


-- name: verify_rejected
-- Runs whose rejected records are not the letters that are listed for them. Of a run that crashed, its last checkpoints are
-- all that is known for sure: the list may have more.
WITH listed AS (
    SELECT run, letters, {digest_sum} AS digest_sum
      FROM (SELECT run, count(*) AS letters, sum(high) AS high, sum(low) AS low, count(*) FILTER (WHERE low < 0) AS negative
              FROM (SELECT run, {halves}
                      FROM (SELECT p.run, {letter_digest} AS digest
                              FROM (SELECT id AS letter, run_id AS run FROM {schema}.dead_letters
                                    UNION
                                    SELECT letter, run FROM {schema}.letter_repeats) p
                              JOIN {schema}.dead_letters l ON l.id = p.letter
                             WHERE l.stage = 'source') AS digests) AS halved
             GROUP BY run) AS summed
)
SELECT r.id AS run, c.name AS connector,
       r.reading_finished_at IS NOT NULL AS whole, r.rejected, coalesce(l.letters, 0) AS listed,
       coalesce(p.rejected, 0)::bigint AS checkpointed
  FROM {schema}.connector_runs r
  JOIN {schema}.connectors c ON c.id = r.connector_id
  LEFT JOIN listed l ON l.run = r.id
  LEFT JOIN (SELECT run_id, sum((counts ->> 'rejected')::bigint) AS rejected
               FROM {schema}.checkpoints GROUP BY run_id) p ON p.run_id = r.id
 WHERE CASE WHEN r.reading_finished_at IS NOT NULL
            THEN (coalesce(l.letters, 0), coalesce(l.digest_sum, 0)) IS DISTINCT FROM (r.rejected, r.rejected_sum)
            ELSE r.closed_at IS NOT NULL AND coalesce(l.letters, 0) < coalesce(p.rejected, 0) END
 ORDER BY r.started_at, r.id
 LIMIT $1;


-- name: verify_deaths
-- Events that were counted dead, and whose letter is not listed, or tells of another death. One whose text PostgreSQL refused
-- is listed without its reason.
SELECT d.run, d.letter_id, l.id IS NOT NULL AS listed
  FROM {schema}.event_deaths d
  LEFT JOIN {schema}.dead_letters l ON l.id = d.letter_id
 WHERE l.id IS NULL
    OR (l.stage, l.event_id, l.run_id) IS DISTINCT FROM ('sink', d.event_id, d.run)
    OR l.reason NOT IN (d.reason, 'unlistable')
 ORDER BY d.run, d.letter_id
 LIMIT $1;


-- name: verify_undead
-- Letters of the sink whose event has no outcome, by what the sink has passed. A record that died twice, because its publisher
-- sent it again, has two letters and one death. One that went through after a crash that came between its letter and its
-- death has a letter and is applied.
SELECT l.run_id AS run, l.id AS letter_id, coalesce(o.next_offset > l.log_offset, false) AS passed
  FROM (SELECT id, run_id, topic, log_partition, log_offset, {letter_digest} AS digest
          FROM {schema}.dead_letters
         WHERE stage = 'sink' AND reason <> 'unreadable_letter' AND log_offset IS NOT NULL) AS l
  LEFT JOIN {schema}.sink_offsets o ON o.topic = l.topic AND o.log_partition = l.log_partition
 WHERE NOT EXISTS (SELECT FROM {schema}.event_deaths d WHERE d.letter_id = l.id)
   AND NOT EXISTS (SELECT FROM {schema}.event_deaths d WHERE d.digest = l.digest AND d.run = l.run_id)
   AND NOT EXISTS (SELECT FROM {schema}.payment_events e WHERE e.digest = l.digest AND e.run = l.run_id)
   AND NOT EXISTS (SELECT FROM {schema}.event_repeats e WHERE e.digest = l.digest AND e.run = l.run_id)
   AND NOT EXISTS (SELECT FROM {schema}.pruned_repeats e WHERE e.run = l.run_id)
 ORDER BY l.run_id, l.id
 LIMIT $1;


-- name: verify_letters
-- Letters that are not what their id, their hash or their content says. Where a text had to be spelled with an escape to be
-- stored at all, its id cannot be made again.
SELECT run, id AS letter_id,
       array_remove(ARRAY[CASE WHEN content <> said THEN 'content' END,
                          CASE WHEN NOT truncated AND (length(bytes) <> size_bytes OR encode(sha256(bytes), 'hex') <> sha256)
                               THEN 'bytes' END,
                          CASE WHEN id <> left(encode(sha256(convert_to(place, 'UTF8')), 'hex'), 32) THEN 'place' END],
                    NULL) AS differs
  FROM (SELECT id, run_id AS run, content, truncated, size_bytes, sha256, {letter_content} AS said,
               coalesce(value, ''::bytea) AS bytes,
               CASE WHEN strpos(topic || source_object || position, '\') > 0 THEN NULL
                    WHEN stage = 'source' AND position <> '' THEN concat_ws(E'\n', stage, connector_id, source_object, position)
                    WHEN stage = 'sink' AND log_offset IS NOT NULL AND NOT truncated
                    THEN concat_ws(E'\n', stage, topic, log_partition, log_offset, coalesce(encode(sha256(value), 'hex'), '-'),
                                   coalesce(encode(sha256(key), 'hex'), '-'))
               END AS place
          FROM {schema}.dead_letters) AS l
 WHERE content <> said
    OR (NOT truncated AND (length(bytes) <> size_bytes OR encode(sha256(bytes), 'hex') <> sha256))
    OR id <> left(encode(sha256(convert_to(place, 'UTF8')), 'hex'), 32)
 ORDER BY run, id
 LIMIT $1;
