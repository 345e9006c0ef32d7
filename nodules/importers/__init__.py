"""Ways in for other layouts: each module turns one of them into a patch file."""
