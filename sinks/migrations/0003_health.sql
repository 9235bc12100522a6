-- How connectors fare: what their worker says of them, and the monitor's verdict with its cause.

-- The connector role alone writes it, every few seconds.
CREATE TABLE connector_reports (
    connector_id uuid PRIMARY KEY REFERENCES connectors (id),
    state        text NOT NULL,
    problem      text NOT NULL,
    hint         text NOT NULL,
    listed_at    timestamptz,
    runs_open    integer NOT NULL,
    pending      integer NOT NULL,
    skipped      json NOT NULL,
    reported_at  timestamptz NOT NULL DEFAULT now()
);

-- The monitor alone writes it.
CREATE TABLE connector_health (
    connector_id uuid PRIMARY KEY REFERENCES connectors (id),
    state        text NOT NULL CHECK (state IN ('healthy', 'degraded', 'down', 'paused')),
    cause        text NOT NULL,
    since        timestamptz NOT NULL DEFAULT now(),   -- of this state
    checked_at   timestamptz NOT NULL DEFAULT now()
);
