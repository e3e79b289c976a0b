"""The 15 data sets of CoOp, from folders that users already have."""
