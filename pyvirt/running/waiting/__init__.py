"""Waiting for what others do: one thread, futures, and the steps of flows."""
