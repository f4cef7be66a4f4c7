"""Imported before all else by what runs tests: leaves out what takes seconds and no test uses."""

import sys

# jsonschema checks internationalised addresses with it where it is installed; its grammar takes 3 s to build
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
