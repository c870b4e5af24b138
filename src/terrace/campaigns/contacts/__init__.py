"""Contacts: kept once each, in any number of lists, read from tables people have."""
