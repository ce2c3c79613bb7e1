"""Drills: what operators do to a running road, done to one on this machine, with an account of every message at the end."""
