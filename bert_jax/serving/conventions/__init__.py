"""The routes of each convention: how its requests and answers look."""
