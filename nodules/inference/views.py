"""The views of a patch over which its probability is averaged."""

from typing import Literal

# The patch itself, or its eight symmetric views.
Views = Literal[1, 8]
