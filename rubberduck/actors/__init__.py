"""The actors of the tree: each receives, asks `core` and sends. What a call goes through on its way is in `calls`."""
