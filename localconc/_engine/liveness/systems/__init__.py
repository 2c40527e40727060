"""What one system has, and the others don't: Linux's inotify, the process tables of macOS, of Windows.

Each module is loaded on its system alone.
Must not know: owners, or what a death means for a store.
"""
