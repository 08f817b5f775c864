"""The form that starts a training."""
