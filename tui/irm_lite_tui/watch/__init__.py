"""Run directories and child processes, watched."""
