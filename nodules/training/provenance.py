"""What a result depends on beyond what DVC hashes: libraries, processor, devices, settings."""

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tensorflow as tf
from ruamel.yaml import YAML

from nodules.runtime import is_deterministic

REPOSITORY = Path(__file__).parents[2]
# Whose other versions may give other bits.
LIBRARIES = ("h5py", "keras", "numpy", "scikit-learn", "tensorflow")
# Variables of the environment that change bits: `nodules.runtime` sets the first two where the user
# has not; the third keeps oneDNN from using all that the processor has.
SETTINGS = ("TF_NUM_INTRAOP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA")
# Beginnings of the names of instruction sets among a processor's flags that compute with floats.
VECTOR_INSTRUCTIONS = ("amx", "asimd", "avx", "f16c", "fma", "sse", "sve")


def environment() -> dict[str, Any]:
    """Describe what may change the bits of a result: the same on every run on one machine.

    Returns
    -------
    dict
        As JSON takes it: `python`, `libraries`, `system`, `processor`, `instruction_sets`,
        `devices`, `settings` of the environment, and whether TensorFlow is `deterministic`.
    """
    model, instructions = _processor()
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "system": f"{platform.system()} {platform.machine()}",
        "processor": model,
        "instruction_sets": instructions,
        "devices": [_device_name(device) for device in tf.config.list_physical_devices()],
        "settings": {name: os.environ.get(name, "") for name in SETTINGS},
        "deterministic": is_deterministic(),
    }


def stage_code(stage: str) -> dict[str, str]:
    """Hash the code that dvc.yaml says a stage depends on.

    Returns
    -------
    dict
        SHA-256 by path, relative to the repository.
    """
    content = YAML(typ="safe", pure=True).load(REPOSITORY / "dvc.yaml")
    files: list[Path] = []
    for dep in content["stages"][stage]["deps"]:
        path = REPOSITORY / dep
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path] * dep.endswith(".py")
    return {
        str(path.relative_to(REPOSITORY)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def _device_name(device: tf.config.PhysicalDevice) -> str:
    details = tf.config.experimental.get_device_details(device)
    return details.get("device_name", device.device_type)


def _processor() -> tuple[str, list[str]]:
    """Name the processor and the instruction sets of its vector units, where Linux lists them."""
    fields: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        for line in text.splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    except OSError:
        return platform.processor(), []
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    model = fields.get("model name") or platform.processor()
    return model, sorted(flag for flag in flags if flag.startswith(VECTOR_INSTRUCTIONS))
