"""Measurements that the documentation quotes: scripts that print figures, and what they share."""

# Entries of `models` in params.yaml that are measured where nothing else is asked for.
MODELS = ("squeezenet", "mobilenet")
