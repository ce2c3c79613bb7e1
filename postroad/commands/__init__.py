"""Commands of `postroad` that are more than a few lines, one module each. As postroad/cli.py, they import what knows Kafka
inside their functions."""
