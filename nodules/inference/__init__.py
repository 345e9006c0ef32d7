"""The probabilities that a network returns for patches."""
