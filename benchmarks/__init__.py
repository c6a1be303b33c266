"""What the README claims about speed, measured again by whoever doubts it."""
