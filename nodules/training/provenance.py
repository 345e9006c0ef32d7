"""Provenance that DVC does not record: libraries, processor, devices, settings."""

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
# Libraries whose version may change bits.
LIBRARIES = ("dvclive", "h5py", "keras", "numpy", "scikit-learn", "scipy", "tensorflow")
# Environment variables that change bits. The package sets defaults for the first two; the third
# limits oneDNN to an older instruction set.
SETTINGS = ("TF_NUM_INTRAOP_THREADS", "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA")
# Prefixes of the processor flags for floating-point vector instruction sets.
VECTOR_INSTRUCTIONS = ("amx", "asimd", "avx", "f16c", "fma", "sse", "sve")


def environment() -> dict[str, Any]:
    """Describe everything that may change the bits of a result; constant on one machine.

    Returns
    -------
    dict
        JSON values: `python`, `libraries`, `system`, `processor`, `instruction_sets`,
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
    """Hash the code that a stage depends on according to dvc.yaml.

    Returns
    -------
    dict
        SHA-256 hash by path relative to the repository.
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
    """Return the processor's name and, on Linux, its vector instruction sets."""
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
