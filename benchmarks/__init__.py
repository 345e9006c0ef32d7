"""Measurements that the documentation quotes: scripts that print figures, and what they share."""
