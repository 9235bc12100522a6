-- What the API answers at once with a year's runs and payments behind it: docs/decisions/017 has the figures.

-- The last proof of the ledger, for those who look: a new one recounts whole tables.
CREATE TABLE ledger_proofs (
    newest   boolean PRIMARY KEY DEFAULT TRUE CHECK (newest),
    began_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    findings jsonb NOT NULL
);

-- Letters by what they died of: groups are counted from this index alone.
CREATE INDEX dead_letters_by_fate ON dead_letters (stage, reason, connector, connector_id, failed_at DESC, id)
    INCLUDE (discarded_at, redriven_at);
CREATE INDEX dead_letters_by_connector ON dead_letters (connector_id, failed_at DESC, id);
CREATE INDEX dead_letters_by_run ON dead_letters (run_id);
CREATE INDEX letter_repeats_by_run ON letter_repeats (run);

-- Letters of files that came again. An origin's row comes once for each file and partition.
CREATE INDEX dead_letters_by_file ON dead_letters (connector_id, path, source_object) WHERE stage = 'source' AND path <> '';
CREATE INDEX event_origins_by_path ON event_origins (connector, path);

-- The newest tasks of a connector that has met a hundred thousand files.
CREATE INDEX checkpoints_by_age ON checkpoints (connector_id, updated_at DESC, task);
