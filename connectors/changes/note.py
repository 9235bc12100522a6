"""What an operator should know of a change stream, beside its options. A part of the docs."""

from __future__ import annotations

from connectors.changes.option import LOSES

_TEXT = """\
**Setting up** (mode `logical`). The server needs `wal_level = logical`; the role needs `LOGIN`, `REPLICATION` and
`SELECT` on the tables. Then, in the database, the publication first and the slot second:

    CREATE PUBLICATION till FOR TABLE public.events WITH (publish_via_partition_root = true);
    SELECT pg_create_logical_replication_slot('till', 'pgoutput');

and `slot: till`. `till source check` names whatever statement is missing, with the names that this connector uses;
with `create: true` the first reading runs them. Connect to the server itself, not through a pooler of transactions.

**Nothing is passed over.** A slot that was dropped, made anew, overrun or read by somebody else, a publication that
was interrupted, a server restored to an earlier state or another timeline after a failover: the connector stops with
`changes_lost`. Mend the cause, raise `generation` by one and resume it: all rows are read again, what is known of
them changes nothing, and then the stream goes on.

**What a slot costs.** The server keeps its log until it was read. `tillstream_held_back_bytes` tells how much, also
while the connector is paused; a
connector that is deleted leaves its slot behind: `SELECT pg_drop_replication_slot('till');`. `max_slot_wal_keep_size`
bounds it, at the price of `changes_lost`. A transaction arrives when it is committed, of any size and in bounded
memory; the server keeps it in temporary files meanwhile, so `temp_file_limit` must allow for it.

**Rows.** `mapping: events_table` reads seed tables `(id, entity_id, event_type, headers, created_at)`:
`payment.completed`, `payment.failed` and `payment.refunded` are known, others are filtered, `status_map` adds more.
Otherwise `columns` maps a row's columns; `$.column.member` leads into JSON. Each insert and each update is a record;
one that says nothing new changes nothing. Truncation is a dead letter, deletion what `on_delete` says. A large value
that an update left alone is not sent; if the mapping needs it, it is read from the row as it is by then, and the
record is a dead letter if that is gone. With `REPLICA IDENTITY FULL` it is sent.

**Polls**, where logical decoding is not to be had. Both see neither deletions nor what was overwritten between two
looks. `watermark` loses nothing; it needs a column, and an index:

    ALTER TABLE public.events ADD COLUMN txid xid8 NOT NULL DEFAULT pg_current_xact_id();
    CREATE INDEX ON public.events (txid, id);

An update is seen if it sets the column, as a trigger can. A transaction that stays open anywhere in the server holds
it back, which shows as `tillstream_held_back_seconds`. `closed_window` needs no change of the table, only a column
that says when a row was changed, and can lose rows:
<LOSES>.
"""
NOTES = _TEXT.replace("<LOSES>", LOSES)
