"""Fuzzing of what reads bytes of strangers: `python -m loadtest.fuzz [TARGET...] --seconds N`, `make fuzz SECONDS=60`."""
