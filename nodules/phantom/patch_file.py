"""Write the phantom as a patch file."""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from nodules.patches.writer import new_patch_file
from nodules.phantom.cohort import generate_phantom
from nodules.phantom.params import PhantomParams


def write_phantom(params: PhantomParams, seed: int, path: Path) -> None:
    """Generate the phantom scan by scan and write a patch file with `X`, `Y` and `group`.

    Parameters
    ----------
    params
        Size and composition.
    seed
        Seed of the generator; the same seed gives the same bytes.
    path
        File to write.
    """
    count = params.scans * params.patches_per_scan
    with new_patch_file(path, count, {"group": np.dtype(np.int64)}) as file:
        scans = generate_phantom(
            scans=params.scans,
            patches_per_scan=params.patches_per_scan,
            nodule_fraction=params.nodule_fraction,
            seed=seed,
        )
        for scan in tqdm(scans, total=params.scans, desc="phantom", unit="scan"):
            group = np.full(len(scan.labels), scan.group)
            file.append(scan.patches, scan.labels, group=group)
