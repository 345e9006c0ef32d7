"""Record the versions of the packages that affect results in a file that DVC's stages depend on.

    python -m nodules.system.environment

writes the installed versions to environment.yaml. `make setup`, after installing packages, and
`make repro` run it, so that `dvc repro` reruns the stages that an upgrade may affect.
"""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nodules.errors import NodulesError
from nodules.system.atomic import replacing
from nodules.system.exits import one_line_errors
from nodules.system.streams import error_text

ENVIRONMENT_FILE = Path("environment.yaml")
HEADER = (
    "# Installed versions of the packages that decide results; written by `make environment`.\n"
)


class EnvironmentFileError(NodulesError):
    """The installed packages differ from those recorded in environment.yaml."""


def installed_version(package: str) -> str:
    """Return the installed version of a distribution, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def check_environment(path: Path = ENVIRONMENT_FILE) -> None:
    """Check that the installed versions are those that DVC would record.

    Parameters
    ----------
    path
        YAML mapping from distribution to version. A missing file is not checked, since DVC
        reports missing dependencies itself.

    Raises
    ------
    EnvironmentFileError
        For the first package whose version differs.
    """
    if not path.exists():
        return
    for package, recorded in _read(path).items():
        if (installed := installed_version(package)) != recorded:
            raise EnvironmentFileError(
                f"{path}: {package}: found {recorded!r}, expected the installed version, "
                f"{installed!r}: `make environment` writes it"
            )


def update_environment(path: Path = ENVIRONMENT_FILE) -> None:
    """Update the file to the installed versions; leave it untouched if nothing changes."""
    recorded = _read(path)
    installed = {package: installed_version(package) for package in recorded}
    if installed != recorded:
        # Quoted, since YAML would read 2.10 as a number.
        entries = "".join(f'{package}: "{found}"\n' for package, found in installed.items())
        with replacing(path) as temporary:
            temporary.write_text(HEADER + entries, encoding="utf-8")


def _read(path: Path) -> dict[str, str]:
    """Read the versions as text.

    Raises
    ------
    EnvironmentFileError
        If the file is missing or is not a mapping.
    """
    # Imported here: where it is not installed, that is an error of one line.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        content = YAML(typ="base", pure=True).load(path)
    except FileNotFoundError:
        raise EnvironmentFileError(f"{path}: no such file, expected package versions") from None
    except YAMLError as error:
        raise EnvironmentFileError(f"{path}: not valid YAML: {error_text(error)}") from None
    if not isinstance(content, dict):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise EnvironmentFileError(f"{path}: found {found}, expected `package: version` per line")
    return content


if __name__ == "__main__":
    with one_line_errors():
        update_environment()
