"""From observation to action; knows arrays, not robots."""
