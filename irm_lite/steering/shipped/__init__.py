"""Data only: control vectors that ship with irm-lite, a TOML file beside each. Read by irm_lite.steering.shipped_vectors."""
