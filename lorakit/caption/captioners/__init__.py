"""One captioner a file; see base.py for the contract."""
