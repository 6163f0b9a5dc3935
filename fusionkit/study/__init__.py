"""The ``fusionkit benchmark`` study: accuracy against the number of parameters."""
