"""The commands, a module for each kind. A module is imported when one of its commands is called."""
