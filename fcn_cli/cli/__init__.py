"""The command line: parses, calls the library, prints. The only package that uses stdout and stderr."""
