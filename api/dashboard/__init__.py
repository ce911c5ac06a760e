"""The dashboard: pages for people, at `/`.

Belongs here: pages, their templates, scripts and styles, sign-in, and the translation of forms into specs. Does not: queries
and rules; pages call the same services as the routes of `/v1`. May import everything else of `api`, and `models`.
"""
