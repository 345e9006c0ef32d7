"""One training: its input, optimizer, callbacks, checkpoints and log."""
