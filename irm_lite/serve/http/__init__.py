"""`irm-lite serve --http`: OpenAI's API over the contexts of one model, with steering in each request (docs/serve.md)."""
