"""Data only: everyday.jsonl, written for irm-lite. Read by irm_lite.dataset; described in docs/data.md."""
