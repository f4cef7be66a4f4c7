"""DICOM series in, derived series out."""
