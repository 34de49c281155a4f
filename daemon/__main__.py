"""`python -m visaged.daemon` is the `visaged` command."""

from visaged.daemon.cli.main import main

main()
