"""The numbers: arrays in, dataclasses with `to_dict` out. Each names its formula, its null and its source; no torch."""
