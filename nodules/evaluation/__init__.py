"""Evaluation of a trained network: predictions, metrics, confidence intervals and figures."""
