"""The directory where the database lives: which one it is, its files, whether its file system keeps locks.

Offers `home()`, `prepare(directory)`, files with exact owners and modes, `filesystem_type`.
Must not know: the database, or the content of the files.
"""
