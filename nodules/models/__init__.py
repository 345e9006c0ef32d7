"""Networks, with one registered builder per file, and model files."""
