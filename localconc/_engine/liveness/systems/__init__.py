"""What one system alone has: Linux's inotify, the process tables of macOS or Windows.

Each module is loaded on its system alone.
Must not know: owners, or what a death means for a store.
"""
