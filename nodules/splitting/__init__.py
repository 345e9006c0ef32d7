"""Split a data set into train, val and test by scan."""
