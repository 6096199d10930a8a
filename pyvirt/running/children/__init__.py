"""Processes of this program: started, watched, and gone when it is."""
