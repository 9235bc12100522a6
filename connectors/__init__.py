"""Outside → events: the Source contract, the runner, one file per source. Knows no Kafka and no sink."""
