"""The networks, one builder per file and found by name, and model files."""
