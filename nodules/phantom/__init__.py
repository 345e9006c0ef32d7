"""Synthetic 50x50 lung-CT patches: the data set that the pipeline runs on by default."""
