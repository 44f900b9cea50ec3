"""`python -m intermodal.cli`: how a client starts the server of its own installation."""

from intermodal.cli.main import main

main()
