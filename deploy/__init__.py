"""How Postroad is run: on one machine (deploy/local); containers and charts later."""
