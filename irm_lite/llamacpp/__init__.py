"""llama.cpp, through llama-cpp-python: the same base, steered by a control vector."""

from irm_lite.llamacpp.runtime import Runtime

__all__ = ["Runtime"]
