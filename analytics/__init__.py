"""The events of the road in ClickHouse: migrations, an exact sink, named queries, and a local engine (chdb or a child server)."""
