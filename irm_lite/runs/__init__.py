"""Run directories: their files, events, lock and checkpoints."""
