"""What every other room builds on; nothing here knows a model: errors, types, files, the machine."""
