"""What a supervisor decides: pure, without thread, clock, randomness or user code."""
