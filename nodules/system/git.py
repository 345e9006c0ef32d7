"""Git: the repository in which the pipeline runs, and the environment of other repositories."""

import os
import subprocess

from nodules.errors import NodulesError

# Variables that direct git to a repository other than that of its arguments, as in a hook.
OF_A_REPOSITORY = {
    f"GIT_{name}"
    for name in (
        "DIR",
        "WORK_TREE",
        "INDEX_FILE",
        "COMMON_DIR",
        "OBJECT_DIRECTORY",
        "ALTERNATE_OBJECT_DIRECTORIES",
        "SHALLOW_FILE",
        "NAMESPACE",
        "PREFIX",
    )
}
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


def environment_without_repository() -> dict[str, str]:
    """Return the environment without the repository that git names to its hooks."""
    return {name: value for name, value in os.environ.items() if name not in OF_A_REPOSITORY}
