"""One widget of the chat a file."""
