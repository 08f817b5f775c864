"""Running models in llama.cpp, steered by control vectors or by the input-dependent IRM itself."""

from irm_lite.llamacpp.model import Model
from irm_lite.llamacpp.runtime import Runtime

__all__ = ["Model", "Runtime"]
