"""The division of a data set into training, validation and test splits by scan."""
