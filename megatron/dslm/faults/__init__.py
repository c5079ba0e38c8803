"""What happens to a run from outside: signals, ranks that die, hang or raise."""
