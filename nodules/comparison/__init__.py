"""Comparison of revisions of the repository on the same test patches."""
