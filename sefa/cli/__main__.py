"""python -m sefa.cli"""

from sefa.cli import main

main()
