"""The block `phantom` of params.yaml."""

from nodules.schema import Block, Count, Fraction


class PhantomParams(Block):
    """Size and composition of the synthetic data set."""

    scans: Count
    patches_per_scan: Count
    nodule_fraction: Fraction
