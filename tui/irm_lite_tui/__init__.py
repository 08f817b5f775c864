"""The terminal UI. It reads run directories and starts the command line; it never loads a model itself."""
