"""Watches releases in production: reads the event store, says when one got worse, which stage did it, and undoes it.

Imports no torch and nothing of ``slimline.endpoint``: it runs as a process of its own beside any number of servers.
"""
