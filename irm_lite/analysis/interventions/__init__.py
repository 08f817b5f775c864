"""What is done to a steered model to see what matters in it, and the measuring of what that changes."""
