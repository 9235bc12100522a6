-- Connectors and their runs: seed 003's two tables with exactly its columns, and side tables for what they lack.

-- Source: seed 003, "Database Schema". connector_type stays NULL for kinds that its check does not know, such as `directory`.
CREATE TABLE sp_v2_connectors (
    id BIGSERIAL PRIMARY KEY,
    name VARCHAR(255) NOT NULL UNIQUE,
    connector_type VARCHAR(50) CHECK (connector_type IN ('BANK_SFTP', 'BANK_API', 'PG_API', 'PG_DATABASE')),
    source_entity VARCHAR(100) NOT NULL,
    status VARCHAR(20) CHECK (status IN ('ACTIVE', 'PAUSED', 'FAILED', 'TESTING')),

    connection_config JSONB NOT NULL,

    schedule_enabled BOOLEAN DEFAULT TRUE,
    schedule_cron VARCHAR(100),
    schedule_timezone VARCHAR(50) DEFAULT 'Asia/Kolkata',

    last_run_at TIMESTAMP WITH TIME ZONE,
    last_run_status VARCHAR(20),
    last_run_details JSONB,

    success_count INTEGER DEFAULT 0,
    failure_count INTEGER DEFAULT 0,
    total_runs INTEGER DEFAULT 0,

    created_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),

    -- Seed 003's health query reads this column; its own DDL forgot it.
    success_rate INTEGER GENERATED ALWAYS AS (
        CASE WHEN total_runs > 0 THEN round(100.0 * success_count / total_runs) ELSE 0 END
    ) STORED
);

-- Source: seed 003, "Database Schema".
CREATE TABLE sp_v2_connector_runs (
    id BIGSERIAL PRIMARY KEY,
    connector_id BIGINT REFERENCES sp_v2_connectors(id) ON DELETE CASCADE,

    run_type VARCHAR(50) CHECK (run_type IN ('SCHEDULED', 'MANUAL', 'TEST', 'BACKFILL')),
    run_date DATE,
    status VARCHAR(20) CHECK (status IN ('SUCCESS', 'PARTIAL_SUCCESS', 'FAILED', 'RUNNING')),

    records_processed INTEGER DEFAULT 0,
    records_success INTEGER DEFAULT 0,
    records_failed INTEGER DEFAULT 0,

    duration_seconds NUMERIC(10, 2),
    error_message TEXT,
    details JSONB,

    started_at TIMESTAMP WITH TIME ZONE DEFAULT NOW(),
    completed_at TIMESTAMP WITH TIME ZONE,
    triggered_by VARCHAR(100)
);

CREATE INDEX sp_v2_connector_runs_by_connector ON sp_v2_connector_runs (connector_id, started_at DESC);

-- A connector for ever: its immutable id outlives its name and its row above.
CREATE TABLE connectors (
    id                    uuid PRIMARY KEY,
    row_id                bigint UNIQUE REFERENCES sp_v2_connectors (id) ON DELETE SET NULL,
    name                  text NOT NULL,
    kind                  text NOT NULL,
    provider              text NOT NULL,
    -- From the first publish on the provider is part of keys in the log and must never change.
    provider_frozen_at    timestamptz,
    configuration_version integer NOT NULL DEFAULT 1,
    created_at            timestamptz NOT NULL DEFAULT now(),
    deleted_at            timestamptz
);

-- What a run counted on its source side. It stays when seed 003's row is deleted: the ledger is an audit trail.
-- Sums are of event digests, modulo 2^128.
CREATE TABLE connector_runs (
    id                  uuid PRIMARY KEY,
    row_id              bigint UNIQUE REFERENCES sp_v2_connector_runs (id) ON DELETE SET NULL,
    connector_id        uuid NOT NULL REFERENCES connectors (id),
    -- The crashed run whose counts this one carries on.
    continues           uuid REFERENCES connector_runs (id),
    read                bigint NOT NULL DEFAULT 0,
    published           bigint NOT NULL DEFAULT 0,
    rejected            bigint NOT NULL DEFAULT 0,
    filtered            bigint NOT NULL DEFAULT 0,
    skipped             bigint NOT NULL DEFAULT 0,
    published_sum       numeric(39, 0) NOT NULL DEFAULT 0,
    rejected_sum        numeric(39, 0) NOT NULL DEFAULT 0,
    started_at          timestamptz NOT NULL DEFAULT now(),
    heartbeat_at        timestamptz NOT NULL DEFAULT now(),
    reading_finished_at timestamptz,
    closed_at           timestamptz,
    reason              text
);

CREATE INDEX connector_runs_open ON connector_runs (started_at) WHERE closed_at IS NULL;

-- Who may write for a connector: a claim raises the epoch, and what an older epoch writes is refused.
CREATE TABLE connector_claims (
    connector_id uuid PRIMARY KEY REFERENCES connectors (id),
    epoch        bigint NOT NULL DEFAULT 0,
    worker       text NOT NULL DEFAULT '',
    claimed_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now()
);

-- Mirror of the table `connector_state`, for readers. The connector role writes it; the greater (epoch, seq) holds.
CREATE TABLE checkpoints (
    connector_id uuid NOT NULL,
    task         text NOT NULL,
    descriptor   text NOT NULL DEFAULT '',
    path         text NOT NULL DEFAULT '',
    run_id       uuid NOT NULL,
    epoch        bigint NOT NULL,
    seq          bigint NOT NULL,
    cursor       json,
    counts       json NOT NULL,
    done         boolean NOT NULL,
    revision_at  timestamptz NOT NULL,
    updated_at   timestamptz NOT NULL,
    PRIMARY KEY (connector_id, task)
);
