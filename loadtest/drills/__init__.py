"""Drills: something large is lost or changed under load, and the road goes on."""
