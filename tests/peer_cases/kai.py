def is_one(case): return False
