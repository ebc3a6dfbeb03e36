"""Settings of other trainers, taken over: the way back of `report/trainers`, by whose tables it goes. No file's code is run."""
