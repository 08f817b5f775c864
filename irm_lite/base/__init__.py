"""The base: found, read, quantised, frozen; its forward pass and its fingerprint."""
