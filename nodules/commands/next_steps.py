"""The commands to run after an import, ready to be copied into a shell."""

import os
import re
import shlex
from itertools import count
from pathlib import Path

import nodules

# Folder of the pipeline's data in a DVC project.
DATA = Path("data")


def next_steps(out: Path, *, labelled: bool) -> list[str]:
    """Return the commands to run next with a new patch file, one per line.

    Parameters
    ----------
    out
        The patch file.
    labelled
        Whether it has labels, so that a network can be trained on it.
    """
    root = project_root()
    here = Path.cwd().resolve()
    if not labelled:
        model = Path("models/model.keras") if root == here else root / "models/model.keras"
        command = f"nodules predict {shell_word(model)} {shell_word(out)} --out scores.csv"
        return ["next:", f"  {command}"]
    place = out.parent.resolve() / out.name
    lines, commands = ["next:"], []
    if root != here:
        commands.append(f"cd {shell_word(root)}")
    if place.is_relative_to(root):
        file = place.relative_to(root)
    else:
        file = _free_name(root, out.name)
        found = f"{out} lies outside the DVC project {root}, where `dvc add` fails"
        lines.insert(0, f"{found}: copy it there first")
        commands.append(f"cp {shell_word(out if root == here else place)} {shell_word(file)}")
    # DVC's temporary and queued experiments see only what git has committed.
    message = f"Add the data set {file.name}"
    commands += [
        f"dvc add {shell_word(file)}",
        f"git add {shell_word(file)}.dvc {shell_word(file.parent / '.gitignore')}",
        f"git commit -m {shell_word(message)}",
        f"dvc exp run --set-param {shell_word(f'dataset={hydra_word(str(file))}')}",
    ]
    return [*lines, *(f"  {command}" for command in commands)]


def project_root() -> Path:
    """Return the DVC project of the current folder, or the checkout of this package."""
    here = Path.cwd().resolve()
    checkout = Path(nodules.__file__).resolve().parents[1]
    return next(
        (folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), checkout
    )


def _free_name(root: Path, name: str) -> Path:
    """Return a path of this name in the data folder that is neither a file nor tracked by DVC."""
    stem, suffix = Path(name).stem, Path(name).suffix
    paths = (DATA / (f"{stem}_{number}{suffix}" if number > 1 else name) for number in count(1))
    return next(
        path for path in paths if not (root / path).exists() and not (root / f"{path}.dvc").exists()
    )


def shell_word(text: str | Path) -> str:
    r"""Quote a path or a parameter as one printable word of a shell command.

    Examples
    --------
    >>> shell_word("data/my set.h5")
    "'data/my set.h5'"
    >>> shell_word(Path("-x.h5"))
    './-x.h5'
    >>> print(shell_word("M\udcfcller\n.h5"))
    $'M\374ller\012.h5'
    """
    text = str(text)
    if text.startswith("-"):  # would be parsed as an option
        text = f"./{text}"
    if text.isprintable():
        return shlex.quote(text)
    # Escape unprintable bytes in octal, in the $'...' syntax of bash, zsh and ksh.
    unescaped = re.compile(r"[\w./=@%+,-]", re.ASCII)
    characters = (chr(byte) for byte in os.fsencode(text))
    return "$'{}'".format(
        "".join(c if unescaped.match(c) else f"\\{ord(c):03o}" for c in characters)
    )


def hydra_word(text: str) -> str:
    """Quote a value for `--set-param`, which DVC parses with Hydra's grammar.

    Examples
    --------
    >>> hydra_word("data/mine.h5")
    'data/mine.h5'
    >>> hydra_word("data/set (1).h5")
    '"data/set (1).h5"'
    """
    if re.fullmatch(r"[A-Za-z_/][\w./-]*[./][\w./-]*", text, re.ASCII):  # excludes `null`
        return text
    # A backslash is literal except before a quotation mark.
    escaped = re.sub(r'(\\*)("|$)', lambda m: m[1] * 2 + ("\\" + m[2] if m[2] else ""), text)
    return f'"{escaped}"'
