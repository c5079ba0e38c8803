"""Command-line tools: text, vocabularies, tokens and checkpoints, each `python tools/NAME.py --help`."""
