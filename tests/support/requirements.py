"""What a test needs of the machine: where it is missing, the test is skipped.

Our workflows install everything, and a skip there would go unnoticed. So they set `REQUIRE_TOOLS`:
then a test runs without what it needs, and fails.
"""

import os

import pytest


def needs(found: object, reason: str) -> pytest.MarkDecorator:
    """Skip a test if what it needs was not found, unless `REQUIRE_TOOLS` is set.

    Parameters
    ----------
    found
        Whether it is there.
    reason
        What is missing, for the summary.
    """
    return pytest.mark.skipif(not found and not os.environ.get("REQUIRE_TOOLS"), reason=reason)
