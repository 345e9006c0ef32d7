"""Training: input, optimizer, callbacks, checkpoints and log."""
