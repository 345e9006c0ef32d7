"""Measurements that the documentation quotes: scripts that print figures, and what they share."""

import nodules as nodules  # sets TensorFlow's environment, before a module imports TensorFlow

# Entries of `models` in params.yaml that are measured where nothing else is asked for.
MODELS = ("squeezenet", "mobilenet")
