"""Answers given again: for the same question, or one that means the same, over the same documents."""
