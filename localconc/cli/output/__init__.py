"""What commands print: text, tables or live views for people, JSON for programs.

It must not know commands or options.
"""
