"""`python -m irm_lite` is `irm-lite`."""

from irm_lite.cli.main import main

main()
