"""The test suite: one module per tested module or command."""

import nodules as nodules  # sets environment variables before TensorFlow is imported
