"""Campaigns: one message for each contact of a list, whatever crashes."""
