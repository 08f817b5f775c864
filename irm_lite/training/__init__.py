"""The training of an IRM: prepared, run, resumed."""
