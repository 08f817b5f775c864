"""Data only: a TOML file for each model that irm-lite knows by name. Read by irm_lite.base.presets."""
