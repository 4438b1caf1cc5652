"""python -m sefa.cli"""

from sefa.cli.app import main

main()
