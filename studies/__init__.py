"""Studies of how deep models train: pretraining runs side by side, and what was found by them.

Each study is a command (`python -m studies.NAME --help`) and has a script in scripts/ that prepares its data.
"""
