"""Pictures with labels that nobody had to write."""
