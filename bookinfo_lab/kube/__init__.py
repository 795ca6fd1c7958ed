"""Kubernetes API objects as values, and who owns an address.  Pure: standard library only."""
