"""Fuzzing what reads files from outside, beyond what the test suite has time for."""
