"""How ranks come up, find each other, draw random numbers and tell each other things."""
