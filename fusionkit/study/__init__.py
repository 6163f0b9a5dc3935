"""``fusionkit study``: accuracy against the number of parameters."""
