-- What the API keeps so that it may be killed at any moment: answers that a client may ask for again, and replays under way.

-- A request that may come twice. `reserved` is the id of what it makes, so that whoever goes on after a crash makes it once.
CREATE TABLE idempotency_keys (
    key         text PRIMARY KEY,
    request     bytea NOT NULL,             -- SHA-256 of method, path, query and body
    reserved    uuid NOT NULL,
    made_at     timestamptz NOT NULL DEFAULT now(),
    status      smallint,                   -- of the answer; null: it is at work, or who was is dead
    headers     jsonb NOT NULL DEFAULT '{}',
    body        text NOT NULL DEFAULT ''
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (made_at);

-- A replay of the log beside the live sink. One whose heartbeat stopped was interrupted: nothing of it is left.
CREATE TABLE replays (
    id           uuid PRIMARY KEY,
    since        timestamptz,
    until        timestamptz,
    apply        boolean NOT NULL,
    requested_by text NOT NULL DEFAULT '',
    started_at   timestamptz NOT NULL DEFAULT now(),
    heartbeat_at timestamptz NOT NULL DEFAULT now(),
    ended_at     timestamptz,
    status       text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'equal', 'different', 'mended', 'failed')),
    report       jsonb,
    error        text NOT NULL DEFAULT ''
);
CREATE INDEX replays_by_start ON replays (started_at DESC, id DESC);
