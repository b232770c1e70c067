"""Other schedulers' own decision cases, turned into worlds of ours and compared."""
