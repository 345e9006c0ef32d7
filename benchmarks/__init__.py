"""Measurements that the documentation quotes, each a script that prints its figures."""
