"""The names of the score's parts, in the order in which they are shown."""

PARTS = ("fluency", "tone", "sense", "steerability")
