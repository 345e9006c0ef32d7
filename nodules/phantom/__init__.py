"""Synthetic 50x50 lung-CT patches: the data set that the pipeline runs on out of the box."""

from .cohort import PhantomScan, generate_phantom

__all__ = ["PhantomScan", "generate_phantom"]
