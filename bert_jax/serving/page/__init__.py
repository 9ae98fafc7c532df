"""The page for people: in front of a server, or with models inside as one file."""
