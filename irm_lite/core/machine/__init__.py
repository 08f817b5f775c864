"""The machine that it runs on: device, memory, processes, and what its libraries have to be told."""
