"""The commands, a module for each kind.

A module is imported when one of its commands is called. It must not know the engine, nor how a terminal is painted.
"""
