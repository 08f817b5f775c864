"""The command line. One file a verb: parse, call the engine, print."""
