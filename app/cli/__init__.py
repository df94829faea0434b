"""The command line: a file for each command, the options that several of them share, and what they print."""
