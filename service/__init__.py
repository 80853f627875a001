"""Heed in production: text in, its translation and the attention behind it out. Never imports torch."""
