"""Base classes of operators, and what builds, sizes and calls them."""
