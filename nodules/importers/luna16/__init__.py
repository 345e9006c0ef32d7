"""Import of LUNA16's scans and candidates, and of other data in its layout."""
