"""dvc.yaml lists exactly the code and packages that determine the outputs of each stage."""

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from nodules.errors import NodulesError
from nodules.system.environment import check_environment, installed_version, update_environment
from tests.support import REPOSITORY

PIPELINE = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
# Code that does not affect output bytes: it rejects input, writes files atomically, or reads
# params.yaml (DVC tracks its values). Its imports are not followed.
UNTRACKED = {REPOSITORY / "nodules" / name for name in ("errors.py", "schema.py", "params.py")}
UNTRACKED_FOLDER = REPOSITORY / "nodules/system"
# Packages that do not affect output bytes.
UNTRACKED_PACKAGES = {"pydantic", "ruamel.yaml", "tqdm"}
# Numerical dependencies of each package.
BENEATH = {"matplotlib": "pillow", "scikit-learn": "scipy"}
DISTRIBUTIONS = importlib.metadata.packages_distributions()


def imported_names(path: Path) -> Iterator[str]:
    """Yield the dotted names of all imports of a file, including those in functions."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ".".join(path.relative_to(REPOSITORY).parts[:-1])
            module = f"{package}.{node.module}" if node.level else str(node.module)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def own_files(name: str) -> Iterator[Path]:
    """Yield the files of this repository that are run by importing a dotted name."""
    parts = name.split(".")
    if parts[0] != "nodules":
        return
    for count in range(1, len(parts) + 1):
        base = REPOSITORY.joinpath(*parts[:count])
        yield from (
            path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()
        )


def untracked(path: Path) -> bool:
    return path in UNTRACKED or UNTRACKED_FOLDER in path.parents


def imports_of(path: Path, modules: set[Path], packages: set[str]) -> None:
    """Add the modules and distributions that a file imports, directly or indirectly."""
    for name in imported_names(path):
        top = name.split(".")[0]
        if top not in sys.stdlib_module_names and top not in ("nodules", "stages"):
            packages.add(DISTRIBUTIONS[top][0])
        for module in own_files(name):
            if module not in modules and not untracked(module):
                modules.add(module)
                imports_of(module, modules, packages)


def is_code_of(dependency: Path, module: Path) -> bool:
    return dependency == module or dependency in module.parents


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_the_code_that_decides_its_outputs_and_on_no_other(stage: str) -> None:
    modules, packages = {REPOSITORY / f"stages/{stage}.py"}, set[str]()
    imports_of(next(iter(modules)), modules, packages)
    if "tensorflow" not in packages:  # whose environment is all that this file sets
        modules.discard(REPOSITORY / "nodules/__init__.py")
    code = [REPOSITORY / dep for dep in PIPELINE[stage]["deps"] if re.match("nodules|stages", dep)]
    unlisted = {m for m in modules if not any(is_code_of(dep, m) for dep in code)}
    assert not unlisted
    unused = [dep for dep in code if not any(is_code_of(dep, m) for m in modules)]
    assert not unused


@pytest.mark.parametrize("stage", PIPELINE)
def test_a_stage_depends_on_the_packages_that_decide_its_outputs_and_on_no_other(
    stage: str,
) -> None:
    packages: set[str] = set()
    imports_of(REPOSITORY / f"stages/{stage}.py", set(), packages)
    packages |= {BENEATH[name] for name in packages & BENEATH.keys()}
    (listed,) = [
        params["environment.yaml"]
        for params in PIPELINE[stage]["params"]
        if isinstance(params, dict)
    ]
    assert set(listed) == packages - UNTRACKED_PACKAGES


@pytest.mark.parametrize(
    ("seed", "stages"), [("seed", {"phantom", "split", "evaluate"}), ("training_seed", {"train"})]
)
def test_another_training_seed_keeps_data_and_split(seed: str, stages: set[str]) -> None:
    assert {stage for stage, each in PIPELINE.items() if seed in each["params"]} == stages


def test_the_environment_is_the_installed_one_and_the_lock_holds_the_same_versions() -> None:
    environment = YAML(typ="base").load(REPOSITORY / "environment.yaml")
    for package, version in environment.items():
        assert version == installed_version(package)
        for lock in ("requirements.lock", "requirements-gpu.lock"):
            locked = re.findall(
                rf"(?m)^{package}(?:\[.*\])?==(\S+)", (REPOSITORY / lock).read_text()
            )
            assert locked == [version], f"{lock}: {package}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "no such file"),
        ("<<<<<<< ours\nnumpy: 1\n", "not valid YAML"),
        ("- numpy\n", "found a list, expected `package: version` per line"),
        ("", "found nothing, expected"),
    ],
)
def test_an_environment_of_another_form_is_one_line(
    tmp_path: Path, text: str | None, problem: str
) -> None:
    path = tmp_path / "environment.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(NodulesError, match=re.escape(f"{path}: {problem}")):
        update_environment(path)


def test_an_upgrade_is_refused_until_the_environment_says_so(tmp_path: Path) -> None:
    path = tmp_path / "environment.yaml"
    path.write_text('numpy: "1.0"\nno-such-package: "2.10"\n', encoding="utf-8")
    with pytest.raises(NodulesError, match=r"numpy: found '1.0', expected the installed version"):
        check_environment(path)
    update_environment(path)
    check_environment(path)
    versions = YAML(typ="safe").load(path)
    assert versions == {"numpy": installed_version("numpy"), "no-such-package": "not installed"}
    before = path.stat().st_mtime_ns
    update_environment(path)
    assert path.stat().st_mtime_ns == before
