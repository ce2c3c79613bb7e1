"""Drills: what operators do to a running road, and what they lose, done to one on this machine, with an account of every message."""
