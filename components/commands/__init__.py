"""The subcommands of `cotam`, one file each.

`add_parser(sub)` describes the command, `run(args)` does it and returns the exit code.

`components/cli.py` imports a command only when it is asked for; a command imports what is heavy only when it runs.
"""
