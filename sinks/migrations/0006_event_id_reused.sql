-- One event id may stand for several records, by somebody's mistake: the first is stored, each other one is a death of its own.

-- The dead record's content hash, as in payment_events; all zeros where nothing was decoded.
ALTER TABLE event_deaths ADD COLUMN content uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000000';
ALTER TABLE event_deaths DROP CONSTRAINT event_deaths_pkey, ADD PRIMARY KEY (digest, run, content);
