"""`python -m pipeline.cli`: run the command where its script is not on the PATH."""

from pipeline.cli import main

main()
