"""The command line. Every command is a thin call into the packages below."""

from btruntime.cli.main import main

__all__ = ["main"]
