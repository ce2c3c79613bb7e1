"""What the tables in ClickHouse must stand and how fast they must be: exactness, ingest, freshness, storage, queries."""
