-- Cursors that an operator edits. The owner of the connector's state takes a row as its order, and tells here what became of it.

-- One edit. `epoch` and `seq` are those of the checkpoint that the operator saw; a later one is not edited.
CREATE TABLE cursor_edits (
    id            uuid PRIMARY KEY,
    number        bigint GENERATED ALWAYS AS IDENTITY,   -- the order in which they were asked for
    connector_id  uuid NOT NULL REFERENCES connectors (id),
    task          text NOT NULL,
    descriptor    text NOT NULL,
    action        text NOT NULL CHECK (action IN ('set', 'reset')),
    before        json,
    after         json,                                  -- null: read from the beginning
    was_done      boolean NOT NULL,
    epoch         bigint NOT NULL,
    seq           bigint NOT NULL,
    follows       json NOT NULL,                         -- what the operator was told
    note          text NOT NULL,
    requested_by  text NOT NULL,
    requested_at  timestamptz NOT NULL DEFAULT now(),
    status        text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'applied', 'refused')),
    reason        text NOT NULL DEFAULT '',              -- why it was refused
    worker        text NOT NULL DEFAULT '',
    checkpoint    json,                                  -- what it became; its epoch and seq are those of the log
    applied_epoch bigint,
    applied_seq   bigint,
    ended_at      timestamptz,
    CHECK ((status = 'pending') = (ended_at IS NULL)),
    CHECK ((status = 'applied') = (checkpoint IS NOT NULL AND applied_epoch IS NOT NULL AND applied_seq IS NOT NULL))
);
CREATE UNIQUE INDEX cursor_edits_open ON cursor_edits (connector_id, task) WHERE status = 'pending';
CREATE INDEX cursor_edits_by_task ON cursor_edits (connector_id, task, number DESC);

-- A worker that has let go of its connector says so: until then nobody edits its cursors, or until it is silent for long.
ALTER TABLE connector_claims ADD COLUMN released_at timestamptz;

CREATE TRIGGER tell_desired AFTER INSERT ON cursor_edits FOR EACH STATEMENT EXECUTE FUNCTION till_tell_desired();

CREATE FUNCTION till_note_cursor_edit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    facts jsonb := jsonb_build_object('edit', NEW.id, 'task', NEW.task, 'descriptor', NEW.descriptor, 'action', NEW.action,
                                      'before', NEW.before, 'after', NEW.after, 'note', NEW.note);
BEGIN
    INSERT INTO activity (kind, connector_id, actor, facts)
    VALUES (CASE NEW.status WHEN 'pending' THEN 'cursor.asked' WHEN 'applied' THEN 'cursor.edited' ELSE 'cursor.refused' END,
            NEW.connector_id, NEW.requested_by,
            facts || CASE WHEN NEW.status = 'pending' THEN '{}' ELSE jsonb_build_object('reason', NEW.reason, 'worker', NEW.worker) END);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_asked AFTER INSERT ON cursor_edits FOR EACH ROW EXECUTE FUNCTION till_note_cursor_edit();
CREATE TRIGGER note_ended AFTER UPDATE OF status ON cursor_edits
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION till_note_cursor_edit();
