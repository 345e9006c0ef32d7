"""What `nodules compare` prints and draws."""
