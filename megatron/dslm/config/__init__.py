"""A run's configuration: dataclasses from which flags, help, checks and what is recorded of a run come."""
