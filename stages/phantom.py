"""Stage `phantom`: generate the embedded data set."""

from pathlib import Path

from nodules.errors import one_line_errors
from nodules.params import read_params
from nodules.phantom.patch_file import write_phantom

if __name__ == "__main__":
    with one_line_errors():
        params = read_params()
        write_phantom(params.phantom, params.seed, Path("data/phantom.h5"))
