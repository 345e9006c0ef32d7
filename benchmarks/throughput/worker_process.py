"""Worker processes that answer each line on stdin with one line on stdout."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

# Sends a line to a worker and returns the answer.
Ask = Callable[[str], str]


@contextmanager
def worker(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Ask]:
    """Start a module as a process that ends with the `with` block.

    Parameters
    ----------
    module
        Module to run with `python -m`. It must answer each line on stdin with one on stdout.
    arguments
        Command-line arguments of the module.
    environment
        Environment variables to set in the process.

    Yields
    ------
    Callable
        Sends a line and returns the answer; raises RuntimeError if the process has ended.
    """
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None
        assert answers is not None

        def ask(question: str) -> str:
            # If the process has ended, the missing answer is reported below.
            with suppress(BrokenPipeError):
                print(question, file=questions, flush=True)
            answer = answers.readline().strip()
            if not answer:
                raise RuntimeError(f"{module} ended at `{question}`")
            return answer

        try:
            yield ask
        finally:
            with suppress(BrokenPipeError):
                questions.close()
