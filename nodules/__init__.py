"""Lung-nodule patch classification: the library behind the pipeline's stages and commands."""
