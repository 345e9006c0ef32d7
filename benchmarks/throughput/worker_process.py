"""A process of its own that answers each line it is told with a line: bursts of work, in turns."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

# Tells a worker something and gives its answer.
Ask = Callable[[str], str]


@contextmanager
def worker(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Ask]:
    """Start a module as a process, which ends with the block.

    Parameters
    ----------
    module
        To be run with `python -m`. It answers each line of its standard input with one of its
        standard output.
    arguments
        Of its command line.
    environment
        Variables to change in it.

    Yields
    ------
    Callable
        It raises RuntimeError where the process has ended instead of answering.
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
            # A process that has ended gives no answer, whether it heard the question or not.
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
