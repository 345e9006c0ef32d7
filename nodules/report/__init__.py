"""What `python -m nodules compare` prints and draws."""
