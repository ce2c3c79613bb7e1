"""Webhooks: what endpoints of tenants are told by HTTP, and how it is signed, sent and tried again (Standard Webhooks 1.0)."""
