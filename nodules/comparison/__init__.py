"""Two revisions of the repository: their results and whether one is better."""
