"""The state of the git repository in which the pipeline runs."""

import subprocess

from nodules.errors import NodulesError

NO_COMMIT = 1  # of `git rev-parse --verify`; outside a repository its status is 128


def check_commit() -> None:
    """Check that the git repository of the current folder, if there is one, has a commit.

    dvclive fails without one, but only once the training starts.

    Raises
    ------
    NodulesError
        If the repository has no commit.
    """
    command = ["git", "rev-parse", "--quiet", "--verify", "HEAD"]
    try:
        status = subprocess.run(command, capture_output=True, check=False).returncode
    except FileNotFoundError:  # git is not installed
        return
    if status == NO_COMMIT:
        problem = "found a repository without a commit, expected at least one"
        raise NodulesError(f"git: {problem}: type `git add . && git commit -m 'First commit'`")
