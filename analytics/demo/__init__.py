"""A month of events of a small world with incidents in it, for newcomers to find, and for benchmarks."""

from analytics.demo.load import Loaded, UsedDatabase, load
from analytics.demo.world import Incident, incidents

__all__ = ["Incident", "Loaded", "UsedDatabase", "incidents", "load"]
