"""A trained IRM -> static vectors that any llama.cpp program can add."""

from irm_lite.export.export import ExportResult, Method, export_vector

__all__ = ["ExportResult", "Method", "export_vector"]
