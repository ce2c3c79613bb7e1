"""What drives and judges the road from outside: producers, the MX farm, benchmarks, fault injection."""
