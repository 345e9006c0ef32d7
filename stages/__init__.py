"""The stages of dvc.yaml, a file each: read params, call the library, write the outputs."""
