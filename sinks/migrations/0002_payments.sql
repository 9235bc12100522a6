-- Payments: event rows (the gate), payments (a fold over them), the sink's side of the run ledger, offsets, dead letters.

-- Where events came from: one row for each (connector, source object, path) in each partition, so that an event's row is short.
CREATE TABLE event_origins (
    id            uuid PRIMARY KEY,          -- hash of all that follows
    connector     uuid,                      -- null: somebody else's client
    log_partition integer NOT NULL,
    topic         text NOT NULL,
    source_object text NOT NULL,
    path          text NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now()
);

-- One row per event, for ever; nothing updates or deletes one. The primary key is what makes a redelivery harmless.
-- Digests are the first 16 bytes of SHA-256: schemas/identity.py. Columns stand in order of alignment, so that rows are small.
CREATE TABLE payment_events (
    digest           uuid NOT NULL,          -- of the event id
    payment          uuid NOT NULL,          -- of (provider, original reference, type)
    key              uuid NOT NULL,          -- of the adjustment: content, not arrival
    content          uuid NOT NULL,          -- of everything the record says
    run              uuid NOT NULL,          -- the run that published it
    origin           uuid NOT NULL,          -- event_origins
    ordinal          bigint GENERATED ALWAYS AS IDENTITY,  -- arrival; says which event of a key was applied
    amount           bigint NOT NULL,        -- minor units; a magnitude for deltas
    effective_at     timestamptz,
    revision_at      timestamptz NOT NULL,
    revision_seq     bigint NOT NULL,
    first_seen_at    timestamptz NOT NULL DEFAULT now(),
    log_offset       bigint NOT NULL,
    line             integer,
    rank             smallint NOT NULL,
    sign             smallint NOT NULL,
    kind             "char" NOT NULL,        -- s snapshot, d delta, a absolute, o overlay
    moved            boolean NOT NULL,       -- money has moved in this snapshot's status
    status           text NOT NULL,
    asset            text NOT NULL,
    scheme           text NOT NULL,
    provider         text NOT NULL,
    type             text NOT NULL,
    reference        text NOT NULL,          -- the record's own
    parent_reference text,                   -- the original payment's, where the record is not it
    event_id         text NOT NULL,
    position         text NOT NULL,
    raw              text,
    PRIMARY KEY (digest)
);

CREATE INDEX payment_events_by_payment ON payment_events (payment);

-- One row per payment: a pure function of its event rows. Every column names its fold.
-- "Greatest": among the dated by (effective_at, rank, key revision, key), among the undated by (rank, key revision, key);
-- of these two the higher rank, the dated one on a tie. "Adjustments" are the representatives of keys (view below).
CREATE TABLE payments (
    payment             uuid NOT NULL,       -- identity
    status_key          uuid,                -- the greatest snapshot or delta; null: there is none yet
    initial_amount      bigint,              -- the greatest snapshot's amount; null: there is none yet
    status_at           timestamptz,         -- effective_at of status_key
    created_at          timestamptz,         -- the least effective_at; null renders as year 1
    ordinal             bigint GENERATED ALWAYS AS IDENTITY,  -- order of first arrival, for lists
    first_seen_at       timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    adjustments         integer NOT NULL,    -- count of keys
    status_rank         smallint NOT NULL,   -- rank of status_key, else 0
    awaiting_original   boolean NOT NULL,    -- no snapshot yet
    over_refund         boolean NOT NULL,    -- a counted negative delta took the amount of a known base below 0
    conflicting_amounts boolean NOT NULL,    -- some key's events disagree on amount or asset
    asset_mismatch      boolean NOT NULL,    -- some adjustment is in another asset, and so left out of the amount
    amount              numeric(38, 0) NOT NULL, -- newest absolute, else greatest snapshot if money moved, plus deltas not before it
    status              text NOT NULL,       -- status of status_key, else unknown
    dispute             text,                -- the greatest of dispute, dispute_won, dispute_lost
    asset               text NOT NULL,       -- the greatest snapshot's, else delta's, else absolute's, else overlay's
    scheme              text NOT NULL,       -- of the adjustment that gives the asset, else the greatest one named
    provider            text NOT NULL,       -- identity
    type                text NOT NULL,       -- identity
    reference           text NOT NULL,       -- identity: the original payment's reference
    id                  text NOT NULL,       -- identity, as seed 000 spells it
    PRIMARY KEY (payment)
) WITH (fillfactor = 85);

CREATE INDEX payments_by_arrival ON payments (ordinal);

-- One row per key: its representative (greatest revision, then content), with the key's revision (the least).
CREATE VIEW adjustments AS
SELECT DISTINCT ON (payment, key)
       payment, key, kind, status, rank, sign, moved, amount, asset, scheme, effective_at,
       last_value(revision_at) OVER versions AS key_revision_at,
       last_value(revision_seq) OVER versions AS key_revision_seq,
       min(amount) OVER versions <> max(amount) OVER versions
           OR min(asset) OVER versions <> max(asset) OVER versions AS conflicting,
       count(*) OVER versions AS events,
       provider, type, reference, parent_reference, raw, digest, event_id, content, revision_at, revision_seq,
       run, origin, position, line, log_offset, ordinal, first_seen_at
  FROM payment_events
WINDOW versions AS (PARTITION BY payment, key
                    ORDER BY revision_at DESC, revision_seq DESC, content DESC, digest DESC
                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
 ORDER BY payment, key, revision_at DESC, revision_seq DESC, content DESC, digest DESC;

-- An event known under one run that another run published too: that run's `duplicate`. Prunable after the run closed.
CREATE TABLE event_repeats (
    digest        uuid NOT NULL,
    run           uuid NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    log_offset    bigint NOT NULL,
    log_partition integer NOT NULL,
    topic         text NOT NULL,
    PRIMARY KEY (digest, run)
);

-- An event whose dead letter is durable: its run's `dead`.
CREATE TABLE event_deaths (
    digest        uuid NOT NULL,
    run           uuid NOT NULL,
    first_seen_at timestamptz NOT NULL DEFAULT now(),
    log_offset    bigint NOT NULL,
    log_partition integer NOT NULL,
    topic         text NOT NULL,
    event_id      text NOT NULL,
    letter_id     text NOT NULL,
    reason        text NOT NULL,
    PRIMARY KEY (digest, run)
);

-- The sink's side of the run ledger. One row per partition, so that concurrent partitions never wait for one another.
CREATE TABLE run_ledger (
    run           uuid NOT NULL,
    log_partition integer NOT NULL,
    topic         text NOT NULL,
    outcome       text NOT NULL CHECK (outcome IN ('applied', 'duplicate', 'dead')),
    events        bigint NOT NULL,
    digest_sum    numeric(39, 0) NOT NULL,   -- of the events' digests, modulo 2^128
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, topic, log_partition, outcome)
) WITH (fillfactor = 50);

-- The next offset to read: everything before it is in the tables above, or in the dead-letter topic.
CREATE TABLE sink_offsets (
    log_partition integer NOT NULL,
    topic         text NOT NULL,
    next_offset   bigint NOT NULL,
    updated_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, log_partition)
) WITH (fillfactor = 50);

-- The dead-letter topic as a list. The letters role alone writes it; a redrive sets its own columns.
CREATE TABLE dead_letters (
    id               text PRIMARY KEY,
    stage            text NOT NULL,
    reason           text NOT NULL,
    message          text NOT NULL,
    hint             text NOT NULL,
    attempts         integer NOT NULL,
    failed_at        timestamptz NOT NULL,
    event_id         text NOT NULL,
    run_id           uuid,
    connector_id     uuid,
    connector        text NOT NULL,
    topic            text NOT NULL,
    log_partition    integer,
    log_offset       bigint,
    path             text NOT NULL,
    position         text NOT NULL,
    line             integer,
    source_object    text NOT NULL,
    key              bytea,
    value            bytea,
    headers          json NOT NULL,
    size_bytes       bigint NOT NULL,
    sha256           text NOT NULL,
    truncated        boolean NOT NULL,
    sqlstate         text NOT NULL,
    letter_partition integer NOT NULL,       -- where the letter itself lies
    letter_offset    bigint NOT NULL,
    listed_at        timestamptz NOT NULL DEFAULT now(),
    redrive_attempts integer NOT NULL DEFAULT 0,
    redrive_run_id   uuid,
    redriven_at      timestamptz             -- set once the redrive's run is confirmed
);

CREATE INDEX dead_letters_by_time ON dead_letters (failed_at DESC, id);
