"""Topics, codec, batch transport and stage runner: everything between Kafka and the plain code of a stage."""
