"""Parts of the MONAI Label app; see docs/monai_label.md."""
