-- Dead letters: who else rejected the same record, what a letter said when it was listed, and that an operator let it go.
-- Repeats of old runs: what is left of them when they are pruned.

ALTER TABLE dead_letters
    ADD COLUMN content      uuid,            -- of everything the letter says; null: listed before this was kept
    ADD COLUMN discarded_at timestamptz,     -- set once an operator has let it go, with a note and a name
    ADD COLUMN discarded_by text,
    ADD COLUMN discard_note text;

-- A record that another run rejected too, such as one that is read again after a crash: it has one letter, listed for the
-- first run of them. The letters role alone writes it.
CREATE TABLE letter_repeats (
    letter           text NOT NULL,
    run              uuid NOT NULL,
    letter_partition integer NOT NULL,
    letter_offset    bigint NOT NULL,
    listed_at        timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (letter, run)
);

-- What event_repeats held of runs that closed long ago: their counts and sums stay, so that the ledger still balances.
-- A repeat of a run that stands here is a redelivery, and counts nowhere. The monitor alone writes it.
CREATE TABLE pruned_repeats (
    run           uuid NOT NULL,
    log_partition integer NOT NULL,
    topic         text NOT NULL,
    events        bigint NOT NULL,
    digest_sum    numeric(39, 0) NOT NULL,
    pruned_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run, topic, log_partition)
);

-- Rows come in the order of time, so this index costs next to nothing.
CREATE INDEX event_repeats_by_age ON event_repeats USING brin (first_seen_at);

-- One run may go on from several crashed ones, a task from each; every task's checkpoint names the run that has it in hand.
ALTER TABLE connector_runs DROP COLUMN continues;
