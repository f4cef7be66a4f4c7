"""What users would pick in place of this package, run on the same scans."""
