"""The parts of the command ``diffens``; :mod:`monai_diffens.cli` puts them together."""
