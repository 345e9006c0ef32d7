"""Stage `split`: divide the data set into train, val and test."""

from pathlib import Path

from nodules.params import read_params
from nodules.splitting.split import split_patches
from nodules.system.atomic import write_json
from nodules.system.exits import one_line_errors

if __name__ == "__main__":
    with one_line_errors():
        params = read_params()
        dataset, folder = Path(params.dataset), Path("data/splits")
        picture = Path("plots/near_duplicates.png")
        counts = split_patches(dataset, folder, params.split, params.seed, picture=picture)
        write_json(Path("metrics/split.json"), counts)
