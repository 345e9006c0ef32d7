"""Benchmark scripts whose figures the documentation quotes, and their shared helpers."""

import nodules as nodules  # sets environment variables before TensorFlow is imported

# Default models to measure, as named under `models` in params.yaml.
MODELS = ("squeezenet", "mobilenet")
