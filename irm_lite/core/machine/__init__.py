"""The machine: device, memory, processes, and settings that its libraries need."""
