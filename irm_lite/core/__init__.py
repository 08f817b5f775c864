"""What everything stands on and nothing of which knows a model: errors, types, files, the machine."""
