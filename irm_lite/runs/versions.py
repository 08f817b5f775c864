"""The versions of the libraries that a training's results depend on."""

import importlib.metadata

_LIBRARIES = ("irm-lite", "torch", "transformers", "bitsandbytes", "numpy", "gguf", "llama-cpp-python")


def installed_versions() -> dict[str, str]:
    """Library -> version, of those that are installed."""
    return {name: version for name in _LIBRARIES if (version := _version(name))}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
