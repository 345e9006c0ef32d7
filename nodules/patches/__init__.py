"""Patch files: layout, validation, reading and writing."""
