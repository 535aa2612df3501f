"""`python -m hwnas`"""

from hwnas.cli.main import main

main()
