"""Images in: sources, decoding, views, loading."""
