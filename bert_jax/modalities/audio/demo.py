digits = split_of = None
