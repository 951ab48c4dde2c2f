"""Groups of parameters of planning and pretraining, one module each. Light: no torch."""
