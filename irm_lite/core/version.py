"""The version of irm-lite: of the package, of what it writes, of what it tells."""

__version__ = "0.1.0"
