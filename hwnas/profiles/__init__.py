"""Latencies one can trust: the catalogue of device profiles, protocols, sessions and their store."""
