"""Heed's training side: corpus -> tokenizer -> batches -> model -> checkpoint -> bundle.

Knows torch and the bundle format (``service.bundle``). Never imported by the service.
"""
