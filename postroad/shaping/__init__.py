"""Shaping: how fast, over how many connections and in what manner mail goes to each site, and what replies change about it.

patterns (of replies, in linear time), limits < automatic (rules and their state), warmup (plans) < fields (keys of the file) <
reading, layers (its tables and faults) < policy (the file as a whole). All pure, but for `policy.Watched`, which looks at the file.
"""
