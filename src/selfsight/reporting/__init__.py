"""The report of a comparison: one HTML file that opens offline and tells the verdict and the numbers behind it."""

from selfsight.reporting.html import render

__all__ = ["render"]
