"""One defect a file; see base.py for the contract."""
