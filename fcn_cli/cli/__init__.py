"""The command line: parse, call, print. No other package knows stdout and stderr."""
