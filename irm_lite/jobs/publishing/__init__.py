"""What was trained, made ready to be given away, and made again from what was given away."""
