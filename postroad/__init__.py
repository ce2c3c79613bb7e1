"""The mail domain: addresses, MIME, DNS, DKIM, SMTP, classification, scoring, shaping, tenants, settings.

Decisions are pure functions of records (avro.records) and plain values; nothing here knows Kafka or Faust.
"""
