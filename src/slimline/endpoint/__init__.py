"""The ASGI application that answers from a release; imports no torch.

Served by BentoML (``serving/service.py``) or alone (``slimline serve``).
"""
