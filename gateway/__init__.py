"""Where mail and calls come in from outside: the inbound MX (inbound.py)."""
