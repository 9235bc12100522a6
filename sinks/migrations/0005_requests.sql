-- What operators want of connectors beside their configuration: runs. And how workers hear of it, and tell how it goes.

-- A run that somebody asked for. Its row in connector_runs is there from the start; the claim whose epoch is greatest serves it.
CREATE TABLE run_requests (
    run          uuid PRIMARY KEY REFERENCES connector_runs (id),
    connector_id uuid NOT NULL REFERENCES connectors (id),
    first_day    date,                               -- the days asked for, both included; null: no bound
    last_day     date,
    force        boolean NOT NULL,                   -- also what is done already
    requested_by text NOT NULL,
    requested_at timestamptz NOT NULL DEFAULT now(),
    epoch        bigint,                             -- of the claim that serves it; null: nobody does yet
    worker       text NOT NULL DEFAULT '',
    taken_at     timestamptz,                        -- for the first time
    cancelled_at timestamptz,
    cancelled_by text NOT NULL DEFAULT '',
    ended_at     timestamptz                         -- read to its end, or failed
);

CREATE INDEX run_requests_open ON run_requests (connector_id, requested_at) WHERE ended_at IS NULL;

-- What a run that was asked for tells beside its counts: what it skipped, and why.
ALTER TABLE connector_runs ADD COLUMN note text NOT NULL DEFAULT '';

-- Who reports, and its tasks as seed 000 shows them: the newest and those at work, bounded.
ALTER TABLE connector_reports
    ADD COLUMN epoch       bigint,
    ADD COLUMN worker      text NOT NULL DEFAULT '',
    ADD COLUMN active      integer NOT NULL DEFAULT 0,
    ADD COLUMN left_behind integer NOT NULL DEFAULT 0,
    ADD COLUMN progress    json NOT NULL DEFAULT '[]',
    ADD COLUMN tasks       json NOT NULL DEFAULT '[]';

-- A source that blocked its worker's event loop until the watchdog ended the worker waits before it runs again.
ALTER TABLE connector_claims
    ADD COLUMN blocked_at      timestamptz,
    ADD COLUMN blocked_times   integer NOT NULL DEFAULT 0,
    ADD COLUMN blocked_version integer;              -- of the configuration

-- A connector that paused itself, because of an error that somebody had to mend, starts anew once it is resumed.
ALTER TABLE connectors ADD COLUMN resumed_at timestamptz;

-- Workers look every few seconds. This lets them look at once; a signal that is lost costs seconds.
CREATE FUNCTION till_tell_desired() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('till_desired', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER tell_desired AFTER INSERT OR UPDATE OF configuration_version, deleted_at, resumed_at ON connectors
    FOR EACH STATEMENT EXECUTE FUNCTION till_tell_desired();
CREATE TRIGGER tell_desired AFTER UPDATE OF status ON sp_v2_connectors
    FOR EACH STATEMENT EXECUTE FUNCTION till_tell_desired();
CREATE TRIGGER tell_desired AFTER INSERT OR UPDATE OF cancelled_at ON run_requests
    FOR EACH STATEMENT EXECUTE FUNCTION till_tell_desired();
