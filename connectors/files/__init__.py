"""Reading files: which are at rest, what is their identity, how their bytes become records. Knows no connector."""
