"""What comes before a training's first step: loading, choosing, checking."""
