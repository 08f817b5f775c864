"""Data only: everyday.jsonl, written for irm-lite. Read by irm_lite.data.dataset; described in docs/data.md."""
