-- The control plane: versions of configurations, what deleted connectors held, what happened and when, files by their content,
-- and seed 004's names over seed 003's tables. docs/decisions/017 tells why.

-- What operators see of a connector and its runs outlives the rows of seed 003: numbers stay, what the rows held is kept.
-- The control plane takes locks in one order: connectors, connector_runs, seed 003's runs, seed 003's connectors.
ALTER TABLE connectors
    DROP CONSTRAINT connectors_row_id_fkey,
    ADD COLUMN revision   integer NOT NULL DEFAULT 1,   -- rises with every change that an operator makes
    ADD COLUMN archived   jsonb,                        -- seed 003's row, once it is deleted
    ADD COLUMN pause_note text NOT NULL DEFAULT '',     -- why it was paused
    ADD COLUMN paused_by  text NOT NULL DEFAULT '',
    ADD COLUMN paused_at  timestamptz;
COMMENT ON COLUMN connectors.row_id IS 'its number: the id of its row of seed 003, for ever';

ALTER TABLE connector_runs
    DROP CONSTRAINT connector_runs_row_id_fkey,
    ADD COLUMN run_type text NOT NULL DEFAULT 'SCHEDULED',
    ADD COLUMN status   text NOT NULL DEFAULT 'RUNNING',
    ADD COLUMN archived jsonb;                          -- seed 003's row, once it is deleted
COMMENT ON COLUMN connector_runs.row_id IS 'its number: the id of its row of seed 003, for ever';

UPDATE connector_runs r
   SET run_type = coalesce(s.run_type, r.run_type), status = coalesce(s.status, r.status)
  FROM sp_v2_connector_runs s WHERE s.id = r.row_id;
UPDATE connectors c SET name = s.name FROM sp_v2_connectors s WHERE s.id = c.row_id AND c.deleted_at IS NULL AND c.name <> s.name;

-- A run is cancelled also if nobody asked for it.
ALTER TABLE connector_runs
    ADD COLUMN cancelled_at timestamptz,
    ADD COLUMN cancelled_by text NOT NULL DEFAULT '';
UPDATE connector_runs r SET cancelled_at = q.cancelled_at, cancelled_by = q.cancelled_by
  FROM run_requests q WHERE q.run = r.id AND q.cancelled_at IS NOT NULL;
DROP TRIGGER tell_desired ON run_requests;
ALTER TABLE run_requests DROP COLUMN cancelled_at, DROP COLUMN cancelled_by;

-- Lists of runs, the newest first: all, a connector's, and those in a rare state.
DROP INDEX connector_runs_open;
CREATE INDEX connector_runs_open ON connector_runs (started_at, id) WHERE closed_at IS NULL;
CREATE INDEX connector_runs_by_start ON connector_runs (started_at DESC, id DESC);
CREATE INDEX connector_runs_by_connector ON connector_runs (connector_id, started_at DESC, id DESC);
CREATE INDEX connector_runs_by_status ON connector_runs (status, started_at DESC, id DESC);
-- How a connector fares: its last runs that read, and its tests, which count apart.
CREATE INDEX connector_runs_ended ON connector_runs (connector_id, closed_at DESC) WHERE closed_at IS NOT NULL AND run_type <> 'TEST';
CREATE INDEX connector_runs_tests ON connector_runs (connector_id, status) WHERE closed_at IS NOT NULL AND run_type = 'TEST';

-- Who deletes a row of seed 003 takes nothing from the history. One statement for any number of rows.
CREATE FUNCTION till_keep_connectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE connectors c SET archived = to_jsonb(o) || jsonb_build_object('name', c.name), deleted_at = coalesce(c.deleted_at, now())
      FROM gone o WHERE c.row_id = o.id;
    RETURN NULL;
END
$$;
CREATE FUNCTION till_keep_runs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE connector_runs r SET archived = to_jsonb(o) FROM gone o WHERE r.row_id = o.id;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep AFTER DELETE ON sp_v2_connectors REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION till_keep_connectors();
CREATE TRIGGER keep AFTER DELETE ON sp_v2_connector_runs REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION till_keep_runs();
DELETE FROM sp_v2_connectors s USING connectors c WHERE c.row_id = s.id AND c.deleted_at IS NOT NULL;

-- A connector's name is its row's, also if somebody else renames it there.
CREATE FUNCTION till_rename_connector() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE connectors SET name = NEW.name WHERE row_id = NEW.id AND name <> NEW.name;
    RETURN NULL;
END
$$;
CREATE TRIGGER rename AFTER UPDATE OF name ON sp_v2_connectors
    FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION till_rename_connector();

-- Connectors and runs with their row of seed 003, whether it is there or was deleted.
CREATE VIEW every_connector AS
SELECT c.id, c.row_id AS number, c.name, c.kind, c.provider, c.provider_frozen_at, c.configuration_version, c.revision, c.resumed_at,
       c.created_at, c.deleted_at, c.pause_note, c.paused_by, c.paused_at,
       CASE WHEN s.id IS NULL THEN a.connector_type ELSE s.connector_type END AS connector_type,
       CASE WHEN s.id IS NULL THEN a.source_entity ELSE s.source_entity END AS source_entity,
       CASE WHEN s.id IS NULL THEN a.status ELSE s.status END AS status,
       CASE WHEN s.id IS NULL THEN a.connection_config ELSE s.connection_config END AS connection_config,
       CASE WHEN s.id IS NULL THEN a.schedule_enabled ELSE s.schedule_enabled END AS schedule_enabled,
       CASE WHEN s.id IS NULL THEN a.schedule_cron ELSE s.schedule_cron END AS schedule_cron,
       CASE WHEN s.id IS NULL THEN a.schedule_timezone ELSE s.schedule_timezone END AS schedule_timezone,
       CASE WHEN s.id IS NULL THEN a.last_run_at ELSE s.last_run_at END AS last_run_at,
       CASE WHEN s.id IS NULL THEN a.last_run_status ELSE s.last_run_status END AS last_run_status,
       CASE WHEN s.id IS NULL THEN a.last_run_details ELSE s.last_run_details END AS last_run_details,
       CASE WHEN s.id IS NULL THEN a.success_count ELSE s.success_count END AS success_count,
       CASE WHEN s.id IS NULL THEN a.failure_count ELSE s.failure_count END AS failure_count,
       CASE WHEN s.id IS NULL THEN a.total_runs ELSE s.total_runs END AS total_runs,
       CASE WHEN s.id IS NULL THEN a.success_rate ELSE s.success_rate END AS success_rate,
       CASE WHEN s.id IS NULL THEN a.updated_at ELSE s.updated_at END AS updated_at
  FROM connectors c
  LEFT JOIN sp_v2_connectors s ON s.id = c.row_id
 CROSS JOIN LATERAL jsonb_populate_record(NULL::sp_v2_connectors, c.archived) a;

CREATE VIEW every_run AS
SELECT r.id, r.row_id AS number, r.connector_id, c.name AS connector, r.run_type, r.status,
       CASE WHEN s.id IS NULL THEN a.run_date ELSE s.run_date END AS run_date,
       CASE WHEN s.id IS NULL THEN a.triggered_by ELSE s.triggered_by END AS triggered_by,
       round(extract(epoch FROM r.closed_at - r.started_at), 2) AS duration_seconds,
       CASE WHEN s.id IS NULL THEN a.details ELSE s.details END AS details,
       r.read, r.published, r.rejected, r.filtered, r.skipped, r.published_sum, r.rejected_sum, r.started_at, r.heartbeat_at,
       r.reading_finished_at, r.closed_at, r.reason, r.note, r.cancelled_at, r.cancelled_by
  FROM connector_runs r
  JOIN connectors c ON c.id = r.connector_id
  LEFT JOIN sp_v2_connector_runs s ON s.id = r.row_id
 CROSS JOIN LATERAL jsonb_populate_record(NULL::sp_v2_connector_runs, r.archived) a;

-- Every configuration that a connector ever had. Secrets are in it by reference only.
CREATE TABLE connector_versions (
    connector_id  uuid NOT NULL REFERENCES connectors (id),
    version       integer NOT NULL,
    kind          text NOT NULL,
    provider      text NOT NULL,
    configuration jsonb NOT NULL,
    made_at       timestamptz NOT NULL DEFAULT now(),
    made_by       text NOT NULL DEFAULT '',
    PRIMARY KEY (connector_id, version)
);

-- Who does what is done in this transaction: `set_config('till.actor', ..., true)`.
CREATE FUNCTION till_actor() RETURNS text LANGUAGE sql STABLE AS $$ SELECT coalesce(current_setting('till.actor', true), '') $$;

CREATE FUNCTION till_keep_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO connector_versions (connector_id, version, kind, provider, configuration, made_by)
    SELECT NEW.id, NEW.configuration_version, NEW.kind, NEW.provider, s.connection_config, till_actor()
      FROM sp_v2_connectors s WHERE s.id = NEW.row_id
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_version AFTER INSERT OR UPDATE OF configuration_version ON connectors
    FOR EACH ROW EXECUTE FUNCTION till_keep_version();
INSERT INTO connector_versions (connector_id, version, kind, provider, configuration, made_at)
SELECT id, configuration_version, kind, provider, connection_config, coalesce(updated_at, created_at)
  FROM every_connector WHERE connection_config IS NOT NULL;

-- The monitor's verdict; seed 004 has its name for a view.
ALTER TABLE connector_health RENAME TO connector_verdicts;

-- What happened, a row each, written by whoever made it happen, in the same transaction. A position is (transaction, id): a reader
-- passes over nothing if it reads only what is older than the oldest transaction at work, `pg_snapshot_xmin`.
CREATE TABLE activity (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transaction  xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind         text NOT NULL,
    connector_id uuid,
    run          uuid,
    actor        text NOT NULL DEFAULT till_actor(),
    facts        jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX activity_by_position ON activity (transaction, id);
CREATE INDEX activity_by_connector ON activity (connector_id, id);
CREATE INDEX activity_by_run ON activity (run, id) WHERE run IS NOT NULL;
CREATE INDEX activity_by_age ON activity USING brin (at);

CREATE FUNCTION till_tell_activity() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('till_activity', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER tell_activity AFTER INSERT ON activity FOR EACH STATEMENT EXECUTE FUNCTION till_tell_activity();

CREATE FUNCTION till_note_connector() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO activity (kind, connector_id, facts)
        SELECT 'connector.created', NEW.id, jsonb_build_object('name', NEW.name, 'kind', NEW.kind, 'provider', NEW.provider)
         WHERE NEW.row_id IS NOT NULL;
        RETURN NULL;
    END IF;
    IF NEW.name <> OLD.name THEN
        INSERT INTO activity (kind, connector_id, facts)
        VALUES ('connector.renamed', NEW.id, jsonb_build_object('name', NEW.name, 'before', OLD.name));
    END IF;
    IF NEW.configuration_version <> OLD.configuration_version THEN
        INSERT INTO activity (kind, connector_id, facts)
        VALUES ('connector.configured', NEW.id,
                jsonb_build_object('name', NEW.name, 'version', NEW.configuration_version, 'provider', NEW.provider));
    END IF;
    IF NEW.deleted_at IS NOT NULL AND OLD.deleted_at IS NULL THEN
        INSERT INTO activity (kind, connector_id, facts) VALUES ('connector.deleted', NEW.id, jsonb_build_object('name', NEW.name));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OF name, configuration_version, deleted_at ON connectors
    FOR EACH ROW EXECUTE FUNCTION till_note_connector();

CREATE FUNCTION till_note_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO activity (kind, connector_id, facts)
    SELECT CASE NEW.status WHEN 'ACTIVE' THEN 'connector.resumed' WHEN 'PAUSED' THEN 'connector.paused' ELSE 'connector.status' END,
           c.id, jsonb_build_object('name', NEW.name, 'status', NEW.status, 'note', c.pause_note)
      FROM connectors c WHERE c.row_id = NEW.id AND c.deleted_at IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_status AFTER UPDATE OF status ON sp_v2_connectors
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION till_note_status();

CREATE FUNCTION till_note_schedule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO activity (kind, connector_id, facts)
    SELECT 'connector.scheduled', c.id,
           jsonb_build_object('name', NEW.name, 'enabled', NEW.schedule_enabled, 'cron', NEW.schedule_cron,
                              'timezone', NEW.schedule_timezone)
      FROM connectors c WHERE c.row_id = NEW.id AND c.deleted_at IS NULL;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_schedule AFTER UPDATE OF schedule_enabled, schedule_cron, schedule_timezone ON sp_v2_connectors
    FOR EACH ROW WHEN ((OLD.schedule_enabled, OLD.schedule_cron, OLD.schedule_timezone)
                       IS DISTINCT FROM (NEW.schedule_enabled, NEW.schedule_cron, NEW.schedule_timezone))
    EXECUTE FUNCTION till_note_schedule();

-- Counts of a run that goes on are no events: they are looked up.
CREATE FUNCTION till_note_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    facts jsonb := jsonb_build_object('number', NEW.row_id, 'type', NEW.run_type, 'status', NEW.status);
    counts jsonb := jsonb_build_object('read', NEW.read, 'published', NEW.published, 'rejected', NEW.rejected,
                                       'filtered', NEW.filtered, 'skipped', NEW.skipped);
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO activity (kind, connector_id, run, facts) VALUES ('run.opened', NEW.connector_id, NEW.id, facts);
        RETURN NULL;
    END IF;
    IF NEW.cancelled_at IS NOT NULL AND OLD.cancelled_at IS NULL THEN
        INSERT INTO activity (kind, connector_id, run, actor, facts)
        VALUES ('run.cancelled', NEW.connector_id, NEW.id, NEW.cancelled_by, facts);
    END IF;
    IF NEW.reading_finished_at IS NOT NULL AND OLD.reading_finished_at IS NULL THEN
        INSERT INTO activity (kind, connector_id, run, facts)
        VALUES ('run.read', NEW.connector_id, NEW.id, facts || counts || jsonb_build_object('note', NEW.note));
    END IF;
    IF NEW.closed_at IS NOT NULL AND OLD.closed_at IS NULL THEN
        INSERT INTO activity (kind, connector_id, run, facts)
        VALUES ('run.ended', NEW.connector_id, NEW.id, facts || counts || jsonb_build_object('reason', NEW.reason));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE OF cancelled_at, reading_finished_at, closed_at ON connector_runs
    FOR EACH ROW EXECUTE FUNCTION till_note_run();

CREATE FUNCTION till_note_request() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO activity (kind, connector_id, run, actor, facts)
        VALUES ('run.asked', NEW.connector_id, NEW.run, NEW.requested_by,
                jsonb_build_object('since', NEW.first_day, 'until', NEW.last_day, 'force', NEW.force));
    ELSE
        INSERT INTO activity (kind, connector_id, run, facts)
        VALUES ('run.taken', NEW.connector_id, NEW.run, jsonb_build_object('worker', NEW.worker, 'epoch', NEW.epoch));
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER note_asked AFTER INSERT ON run_requests FOR EACH ROW EXECUTE FUNCTION till_note_request();
CREATE TRIGGER note_taken AFTER UPDATE OF epoch ON run_requests
    FOR EACH ROW WHEN (OLD.epoch IS DISTINCT FROM NEW.epoch) EXECUTE FUNCTION till_note_request();

CREATE FUNCTION till_note_verdict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO activity (kind, connector_id, facts)
    VALUES ('health.changed', NEW.connector_id, jsonb_build_object('state', NEW.state, 'cause', NEW.cause));
    RETURN NULL;
END
$$;
CREATE TRIGGER note_first AFTER INSERT ON connector_verdicts FOR EACH ROW EXECUTE FUNCTION till_note_verdict();
CREATE TRIGGER note AFTER UPDATE OF state, cause ON connector_verdicts
    FOR EACH ROW WHEN ((OLD.state, OLD.cause) IS DISTINCT FROM (NEW.state, NEW.cause)) EXECUTE FUNCTION till_note_verdict();

-- Workers look at once when a run that nobody asked for is cancelled, and when a schedule comes or goes.
CREATE TRIGGER tell_desired AFTER INSERT ON run_requests FOR EACH STATEMENT EXECUTE FUNCTION till_tell_desired();
CREATE TRIGGER tell_desired AFTER UPDATE OF cancelled_at ON connector_runs FOR EACH STATEMENT EXECUTE FUNCTION till_tell_desired();
DROP TRIGGER tell_desired ON sp_v2_connectors;
CREATE TRIGGER tell_desired AFTER UPDATE OF status, name, schedule_cron ON sp_v2_connectors
    FOR EACH STATEMENT EXECUTE FUNCTION till_tell_desired();

-- Files by their content: seed 004. The connector role alone writes it, with the mirror of its checkpoints. Bytes that came under
-- several names in a cycle have one row, of the first.
CREATE TABLE recon_ingested_file (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    connector_id  uuid NOT NULL REFERENCES connectors (id),
    run           uuid,                      -- the last that had it in hand
    task          text NOT NULL,
    provider      text NOT NULL,
    cycle_date    date NOT NULL,             -- the day it is about: of its name, else when it was first met
    filename      text NOT NULL,
    path          text NOT NULL,
    sha256        text,                      -- null until it is here whole
    size_bytes    bigint,
    state         text NOT NULL CHECK (state IN ('DISCOVERED', 'DOWNLOADED', 'NORMALIZED', 'MATCHED', 'ERROR')),
    dedupe_key    text NOT NULL UNIQUE,      -- provider|cycle|sha256
    records       bigint NOT NULL DEFAULT 0, -- that were read
    rejected      bigint NOT NULL DEFAULT 0,
    error         text NOT NULL DEFAULT '',
    epoch         bigint NOT NULL DEFAULT 0, -- of the checkpoint that this row tells of
    seq           bigint NOT NULL DEFAULT 0,
    discovered_at timestamptz NOT NULL,
    downloaded_at timestamptz,
    normalized_at timestamptz,
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX recon_ingested_file_by_connector ON recon_ingested_file (connector_id, id DESC);
CREATE INDEX recon_ingested_file_by_run ON recon_ingested_file (run, id);
CREATE INDEX recon_ingested_file_open ON recon_ingested_file (connector_id, state) WHERE state <> 'NORMALIZED' AND state <> 'MATCHED';
CREATE INDEX recon_ingested_file_by_cycle ON recon_ingested_file (provider, cycle_date);

-- Seed 004's names over seed 003's tables.
CREATE VIEW recon_connector AS
SELECT 'conn_' || s.id AS id, s.name,
       CASE WHEN s.connector_type IN ('BANK_API', 'PG_API') OR c.kind = 'http_api' THEN 'API'
            WHEN s.connector_type = 'BANK_SFTP' OR c.kind = 'sftp' THEN 'SFTP'
            ELSE upper(coalesce(c.kind, s.connector_type)) END AS type,
       coalesce(c.provider, s.source_entity) AS provider, s.status, s.connection_config AS config,
       s.schedule_enabled, s.schedule_cron AS schedule, s.schedule_timezone AS timezone, s.last_run_at, s.last_run_status,
       s.created_at, s.updated_at, s.id AS number, c.id AS connector_id, c.kind
  FROM sp_v2_connectors s
  LEFT JOIN connectors c ON c.row_id = s.id;

CREATE VIEW recon_connector_run AS
SELECT 'run_' || s.id AS id, 'conn_' || s.connector_id AS connector_id, s.run_type, s.run_date,
       CASE s.status WHEN 'PARTIAL_SUCCESS' THEN 'PARTIAL' ELSE s.status END AS outcome,
       s.started_at, s.completed_at AS ended_at, s.duration_seconds, s.records_processed, s.records_success, s.records_failed,
       s.error_message, s.triggered_by, coalesce(f.files, 0) AS files_total, coalesce(f.normalized, 0) AS files_normalized,
       coalesce(f.failed, 0) AS files_failed, coalesce(r.skipped, 0) AS files_skipped, s.id AS number, r.id AS run
  FROM sp_v2_connector_runs s
  LEFT JOIN connector_runs r ON r.row_id = s.id
  LEFT JOIN LATERAL (
      SELECT count(*) AS files, count(*) FILTER (WHERE state IN ('NORMALIZED', 'MATCHED')) AS normalized,
             count(*) FILTER (WHERE state = 'ERROR') AS failed
        FROM recon_ingested_file WHERE run = r.id
  ) f ON TRUE;

-- The last run that went well says how a connector fares; tests tell nothing of it. `backlog` are files that are not through.
CREATE VIEW connector_health AS
SELECT 'conn_' || s.id AS connector_id, s.name, s.status,
       CASE WHEN l.closed_at IS NULL AND w.ok_at IS NULL THEN 'NEVER_RUN'
            WHEN w.ok_at > now() - interval '1 day' THEN 'HEALTHY'
            WHEN w.ok_at > now() - interval '3 days' THEN 'WARNING'
            ELSE 'CRITICAL' END AS health_status,
       l.closed_at AS last_run_at, l.status AS last_run_status, w.ok_at AS last_success_at,
       coalesce(f.backlog, 0) + coalesce(p.pending, 0) AS backlog,
       v.state AS verdict, v.cause, v.since, s.id AS number, c.id AS connector
  FROM sp_v2_connectors s
  LEFT JOIN connectors c ON c.row_id = s.id
  LEFT JOIN connector_verdicts v ON v.connector_id = c.id
  LEFT JOIN connector_reports p ON p.connector_id = c.id
  LEFT JOIN LATERAL (
      SELECT closed_at, status FROM connector_runs
       WHERE connector_id = c.id AND closed_at IS NOT NULL AND run_type <> 'TEST' ORDER BY closed_at DESC LIMIT 1
  ) l ON TRUE
  LEFT JOIN LATERAL (
      SELECT closed_at AS ok_at FROM connector_runs
       WHERE connector_id = c.id AND closed_at IS NOT NULL AND run_type <> 'TEST' AND status <> 'FAILED'
       ORDER BY closed_at DESC LIMIT 1
  ) w ON TRUE
  LEFT JOIN LATERAL (
      SELECT count(*) AS backlog FROM recon_ingested_file
       WHERE connector_id = c.id AND state <> 'NORMALIZED' AND state <> 'MATCHED' AND state <> 'ERROR'
  ) f ON TRUE;

-- Seed 003's default connector, once for ever. It runs when it is asked or scheduled.
WITH seed AS (
    INSERT INTO sp_v2_connectors (name, connector_type, source_entity, status, connection_config, schedule_enabled, schedule_cron,
                                  schedule_timezone)
    VALUES ('SabPaisa PG API', 'PG_API', 'SABPAISA', 'ACTIVE',
            '{"api_base_url": "https://reportapi.sabpaisa.in/SabPaisaReport/REST/SettlePaisa/txnData",
              "authentication_type": "IP_WHITELIST", "merchant_codes": ["ALL"], "sync_days_back": 1, "auto_retry": true,
              "retry_count": 3}',
            TRUE, '0 2 * * *', 'Asia/Kolkata')
        ON CONFLICT (name) DO NOTHING
    RETURNING id, name, source_entity, created_at
)
INSERT INTO connectors (id, row_id, name, kind, provider, created_at)
SELECT gen_random_uuid(), id, name, 'http_api', source_entity, created_at FROM seed;
