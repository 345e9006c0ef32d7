"""TensorFlow's environment is set before its first import; it is imported only if needed."""

import os
import subprocess
import sys

import pytest

from tests.support.small_training import REPOSITORY

# Ends the process at the first import of TensorFlow or Keras and prints the environment.
AT_FIRST_IMPORT = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name in ("keras", "tensorflow"):
            settings = ("TF_ENABLE_ONEDNN_OPTS", "TF_NUM_INTRAOP_THREADS", "TF_CPP_MIN_LOG_LEVEL")
            print(*(os.environ.get(setting) for setting in settings), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Finder())
"""


def settings_at_first_import(module: str, **user: str) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    code = f"{AT_FIRST_IMPORT}\nimport {module}"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment | user, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout.split()


@pytest.mark.parametrize(
    "module",
    [
        "nodules.training.train",
        "nodules.inference.folding",
        "nodules.models.squeezenet",
        "benchmarks.bits",
        "tests.support.train_on_two_devices",
    ],
)
def test_the_environment_is_set_before_tensorflow_is_imported(module: str) -> None:
    assert settings_at_first_import(module) == ["1", "1", "3"]


def test_a_users_own_setting_is_kept() -> None:
    found = settings_at_first_import("nodules.training.train", TF_NUM_INTRAOP_THREADS="4")
    assert found == ["1", "4", "3"]


@pytest.mark.parametrize(
    "module",
    ["nodules.__main__", "stages.phantom", "stages.split", "stages.class_weights", "stages.train"],
)
def test_what_needs_no_tensorflow_yet_does_not_import_it(module: str) -> None:
    assert settings_at_first_import(module) == []
