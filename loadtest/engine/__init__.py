"""The engine room alone, on records that are no mail: speed of a hop, and faults that are counted."""
