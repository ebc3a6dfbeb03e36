"""What is derived from measures when it is read: verdicts, faults of texts, coverage of the set."""
