"""The local page on which people look at what an encoder sees: a picture, a point in it, and what is like it elsewhere."""

from selfsight.explorer.exploring import explore

__all__ = ["explore"]
