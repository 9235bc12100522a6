"""Everything that is run to see whether the promises hold."""
