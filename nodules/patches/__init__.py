"""The patch file: how it is laid out, checked, read and written."""
