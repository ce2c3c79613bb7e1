"""`make check-delivery`: what delivery has to show (caps, neighbours, memory, fairness, other mail servers, DKIM, CPU), measured."""
