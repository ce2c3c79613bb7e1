"""The main job on real input: 2,000 submissions of three tenants through the whole road, and an account of every one.

`python -m loadtest.demo`. plan.py says what is sent and how each message must end, producer.py sends it from a process of
its own, road.py runs the farm and `postroad up`, ledger.py asks ClickHouse, checks.py compares the three.
"""
