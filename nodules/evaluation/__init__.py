"""How good a trained network is: its predictions, metrics, intervals and figures."""
