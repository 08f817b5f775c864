"""Files: read within limits, written atomically."""
