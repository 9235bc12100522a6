-- Where tasks stand, and the edits of it. Checkpoints here are the mirror's; an edit's row is an order to the state's owner.

-- name: list_cursors
-- Of a connector, by task, from the one after `$2` (null: the first); `$3` how many.
SELECT c.task, c.descriptor, c.cursor, c.done, c.run_id, c.epoch, c.seq, c.revision_at, c.updated_at, e.id AS pending
  FROM checkpoints c
  LEFT JOIN cursor_edits e ON e.connector_id = c.connector_id AND e.task = c.task AND e.status = 'pending'
 WHERE c.connector_id = $1 AND ($2::text IS NULL OR c.task > $2)
 ORDER BY c.task
 LIMIT $3;

-- name: find_cursor
SELECT c.task, c.descriptor, c.cursor, c.done, c.run_id, c.epoch, c.seq, c.revision_at, c.updated_at, e.id AS pending
  FROM checkpoints c
  LEFT JOIN cursor_edits e ON e.connector_id = c.connector_id AND e.task = c.task AND e.status = 'pending'
 WHERE c.connector_id = $1 AND c.task = $2;

-- name: held_by
-- The worker that has the connector in hand, if one does. `$2` is how many seconds it may be silent.
SELECT worker FROM connector_claims
 WHERE connector_id = $1 AND released_at IS NULL AND heartbeat_at > now() - $2 * interval '1 second';

-- name: release_claim
-- The worker of this epoch has nothing of the connector in hand any more.
UPDATE connector_claims SET released_at = now() WHERE connector_id = $1 AND epoch = $2;

-- name: ask_cursor_edit
INSERT INTO cursor_edits (id, connector_id, task, descriptor, action, before, after, was_done, epoch, seq, follows, note, requested_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13);

-- name: find_cursor_edit
SELECT * FROM cursor_edits WHERE id = $1 AND connector_id = $2;

-- name: open_cursor_edits
-- Of these connectors.
SELECT connector_id, id FROM cursor_edits WHERE status = 'pending' AND connector_id = ANY ($1::uuid[]);

-- name: cursor_edits_to_apply
-- What the owner of a connector's state sees to before anybody reads: the pending edits, and of each task the last that was applied,
-- in case that its state has lost it. In the order in which they were asked for.
SELECT * FROM (
    SELECT DISTINCT ON (task) * FROM cursor_edits WHERE connector_id = $1 AND status = 'applied' ORDER BY task, number DESC
) AS applied
UNION ALL
SELECT * FROM cursor_edits WHERE connector_id = $1 AND status = 'pending'
 ORDER BY number;

-- name: end_cursor_edit
-- `$3` is the checkpoint that it became, of this epoch and this number.
UPDATE cursor_edits
   SET status = 'applied', worker = $2, checkpoint = $3, applied_epoch = $4, applied_seq = $5, ended_at = coalesce(ended_at, now())
 WHERE id = $1 AND status <> 'refused'
RETURNING id;

-- name: refuse_cursor_edit
UPDATE cursor_edits SET status = 'refused', worker = $2, reason = $3, ended_at = now() WHERE id = $1 AND status = 'pending';

-- name: refuse_cursor_edits
-- All of a connector that nobody will apply any more.
UPDATE cursor_edits SET status = 'refused', reason = $2, ended_at = now() WHERE connector_id = $1 AND status = 'pending';
