"""Benchmark scripts whose figures the documentation quotes, and their shared helpers."""

import argparse
from collections.abc import Sequence

import nodules as nodules  # sets environment variables before TensorFlow is imported

# Default models to measure, as named under `models` in params.yaml.
MODELS = ("squeezenet", "mobilenet")


def new_parser(module: str, doc: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help names the command and shows the first line of its docstring."""
    description = (doc or "").partition("\n")[0]
    return argparse.ArgumentParser(prog=f"python -m {module}", description=description)


def add_models(parser: argparse.ArgumentParser, choices: Sequence[str] = MODELS) -> None:
    """Add the option `--models`, by default `MODELS`."""
    parser.add_argument(
        "--models",
        nargs="+",
        choices=choices,
        default=MODELS,
        metavar="MODEL",
        help=f"one or more of {', '.join(choices)}; by default {' and '.join(MODELS)}",
    )
