"""What several test files share."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
