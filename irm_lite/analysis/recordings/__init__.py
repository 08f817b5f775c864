"""What an IRM put out, token by token: written, read back, summed up."""
