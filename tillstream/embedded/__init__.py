"""
Real parts on loopback, without Docker: a Kafka broker, a PostgreSQL server, and a supervisor for them and our workers.

`supervisor.up` is what `till up` calls; tests use `EmbeddedKafka` and `EmbeddedPostgres` by themselves.
Meant for development, demonstrations and tests: one broker and one server on one disk survive the death of any process,
not the death of the machine.
"""

from __future__ import annotations
