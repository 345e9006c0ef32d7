"""The test suite: a module for each module or command that it tests."""

import nodules as nodules  # sets TensorFlow's environment, before a module imports TensorFlow
