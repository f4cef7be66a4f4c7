"""Programs a user runs: the demo, DICOM in and out, reports, bundle packing."""
