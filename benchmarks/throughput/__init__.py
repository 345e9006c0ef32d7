"""Training throughput of the pipeline against plain Keras and PyTorch."""
