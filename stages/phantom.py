"""Stage `phantom`: generate the embedded data set."""

from pathlib import Path

from nodules.params import read_params
from nodules.phantom.patch_file import write_phantom
from nodules.system.exits import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        params = read_params()
        write_phantom(params.phantom, params.seed, Path("data/phantom.h5"))
