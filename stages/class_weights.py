"""Stage `class_weights`: compute class weights from the class frequencies of the train split."""

from pathlib import Path

from nodules.params import read_params
from nodules.patches.reader import open_patches
from nodules.system.atomic import write_json
from nodules.system.exits import one_line_errors
from nodules.training.class_weights import class_weights

if __name__ == "__main__":
    with one_line_errors():
        params = read_params()
        with open_patches(Path("data/splits/train.h5")) as train_split:
            weights = class_weights(train_split.labels, params.chosen_class_weights)
        write_json(Path("data/class_weights.json"), weights)
