"""State of the stages: the durable store, and one module per logical table with its number, key, value and expiry."""
