"""What can be seen of a system: the live tree, the events, the crash log, the audit."""
