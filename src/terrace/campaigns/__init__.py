"""Campaigns: whom to write to, what to write, and one message for each, whatever crashes."""
