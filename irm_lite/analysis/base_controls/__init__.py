"""What the untouched base gives for free, which every finding is held against."""
