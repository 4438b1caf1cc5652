"""Run the command line with `python -m sefa_cli`."""

from sefa_cli import main

main()
