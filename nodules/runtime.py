"""TensorFlow, set up in one place: quiet, and the same result from the same seed."""

import os

# Read by TensorFlow as it is imported: its start-up notices would bury the progress bar.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf  # noqa: E402 - the variable above must be set first


def be_deterministic() -> None:
    """Make TensorFlow's operations give the same bits on every run on one machine."""
    tf.config.experimental.enable_op_determinism()
