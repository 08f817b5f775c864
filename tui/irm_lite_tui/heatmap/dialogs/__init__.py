"""Small windows: what to draw, and where to save it."""
