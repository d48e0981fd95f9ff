"""Paired comparison of encoders, and the verdict."""
