"""Fast products and elementwise loops, and the choice between them."""
