"""The test suite: a module for each module or command that it tests."""
