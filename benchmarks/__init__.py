"""Measurements: everything this project says about speed is measured by a module here."""
