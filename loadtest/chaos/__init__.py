"""The road under faults, and the proof by counting that nothing is lost: `python -m loadtest.chaos`, `make chaos`."""
