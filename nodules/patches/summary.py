"""Sentences about the content of a patch file, the same wherever one is printed."""

import numpy as np

from nodules.patches.layout import Groups

NO_GROUPS = "no groups: patches of one patient may end up in different splits"
SPLIT_WITHOUT_GROUPS = "no groups: patches of one patient may be in different splits of the file"


def counted(number: int, noun: str) -> str:
    """Return a number of things.

    Examples
    --------
    >>> counted(1, "patch"), counted(2, "patch"), counted(1_000, "image")
    ('1 patch', '2 patches', '1,000 images')
    """
    ending = "" if number == 1 else "es" if noun.endswith("ch") else "s"
    return f"{number:,} {noun}{ending}"


def group_sizes(groups: Groups) -> str:
    """Return the number of groups and their sizes.

    Examples
    --------
    >>> group_sizes(np.array(["a", "a", "b"], dtype=object))
    '2 of 1 to 2 patches'
    >>> group_sizes(np.array(["a", "b"], dtype=object))
    '2 of 1 patch each'
    """
    sizes = np.unique(groups, return_counts=True)[1]
    low, high = int(sizes.min()), int(sizes.max())
    if low == high:
        return f"{len(sizes):,} of {counted(low, 'patch')} each"
    return f"{len(sizes):,} of {low:,} to {counted(high, 'patch')}"
