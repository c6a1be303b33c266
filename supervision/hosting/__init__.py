"""What lives run on: event loops in threads, and threads of their own."""
