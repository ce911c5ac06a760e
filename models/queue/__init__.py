"""The queue: wake-up messages that say "there may be work", and nothing else.

Belongs here: the Celery app and its transports. Does not: the selection of due work (`models/scheduling`). May import
`models/settings`.
"""
