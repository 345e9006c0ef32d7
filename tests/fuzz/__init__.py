"""Fuzzing of the file readers, for longer runs than the test suite allows."""
