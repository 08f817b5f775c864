"""One file a verb: parse, call the engine, print."""
