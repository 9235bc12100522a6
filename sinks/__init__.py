"""Effects → rows: idempotent by construction."""
