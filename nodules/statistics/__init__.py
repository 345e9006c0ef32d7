"""Tests, confidence intervals and the bootstrap, for patches grouped by scan."""
