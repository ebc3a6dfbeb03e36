"""Other trainers, one a file: what their settings are called; see base.py for the contract."""
