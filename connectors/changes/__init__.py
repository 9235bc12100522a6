"""Reading the changes of a PostgreSQL database: what `connectors/postgres_changes.py` is made of."""
