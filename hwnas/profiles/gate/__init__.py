"""`hwnas check`: is a network slower than its baseline? Decided by rank tests, told to CI systems."""
