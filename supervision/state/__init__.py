"""What one life leaves to the next: snapshots, event logs, and who keeps them."""
