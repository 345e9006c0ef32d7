"""The networks: a builder function a file, found by name through `registry`."""
