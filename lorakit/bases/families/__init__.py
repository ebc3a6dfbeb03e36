"""One architecture a file; see base.py for the contract."""
