"""The search of one device: block costs, filter, strategies, measured latency, the front."""
