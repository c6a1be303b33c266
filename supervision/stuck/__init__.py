"""Handlers and loops that do not come back: how they are noticed and what is done about them."""
