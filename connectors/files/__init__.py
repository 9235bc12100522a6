"""Reading files: which are at rest, what is their identity, how their bytes become records. For local folders and staged downloads."""
