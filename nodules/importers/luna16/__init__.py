"""The scans and candidates of LUNA16, and data laid out like it, as patches."""
