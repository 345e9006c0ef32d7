"""Whether one set of predictions is better than another of the same patches, or merely luckier."""
