"""The layout of a patch file: CT patches with labels, groups and splits in one HDF5 file.

Layout (N patches):

========  =============================  ======================================  ========
data set  shape                          type                                    required
========  =============================  ======================================  ========
`X`       (N, 50, 50) or (N, 50, 50, 1)  uint8 in 0..255, or float in 0..1       yes
`Y`       (N, 2) one-hot, or (N,)        any number; column 1 is the nodule      to train
`group`   (N,)                           integer or string: the scan or patient  no
`split`   (N,)                           string: train, val or test              no
========  =============================  ======================================  ========

Importers may add where a patch comes from: `file` (the path of an image) or `candidate` (a row in
a table). They are carried through the pipeline. So is `irrelevant`, 1 for a patch whose class is
disputed and which the challenge ignores, otherwise 0. `published_split` is like `split`, but its
groups may span splits; it is used only on request. Other data sets are not carried.

No group spans two splits. Files that the `split` stage writes also hold `index`, the row of
each patch in the data set.

In memory, patches are always uint8. Floats are rounded to the nearest of 256 grey levels, which is
finer than CT noise and lossless for patches that come from 8-bit images.

Patch files are untrusted. All data are read from the file itself, links are refused, and memory is
allocated only for data that the file stores.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PATCH_SIZE = 50
SPLITS = ("train", "val", "test")
# Optional data sets that name the origin of each patch.
SOURCES = ("file", "candidate")
CLASSES = ("non_nodule", "nodule")
# 4,096 patches are 10 MB as uint8: large enough for speed, small enough for any machine.
BLOCK_PATCHES = 4096
# Pixels of an image that importers accept; digitised mammograms have up to 28 megapixels.
MAX_PIXELS = 2**25
Patches = NDArray[np.uint8]
Labels = NDArray[np.uint8]
Columns = Mapping[str, np.dtype]
Groups = NDArray[np.int64] | NDArray[np.uint64] | NDArray[np.object_]
