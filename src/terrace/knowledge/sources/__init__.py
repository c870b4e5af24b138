"""Folders, pages, sites and feeds that bring documents by themselves, and take away only what they brought."""
