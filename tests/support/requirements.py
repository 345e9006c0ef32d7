"""What a test needs of the machine: skipped where it is missing, but not in CI.

A skip in CI would go unnoticed, so there (`CI` is set) a test runs without what it needs and fails.
"""

import os

import pytest


def needs(found: object, reason: str) -> pytest.MarkDecorator:
    """Skip a test if what it needs was not found, except in CI.

    Parameters
    ----------
    found
        Whether it is there.
    reason
        What is missing, for the summary.
    """
    return pytest.mark.skipif(not found and not os.environ.get("CI"), reason=reason)
