"""Policies: the compact vision-language-action transformer."""
