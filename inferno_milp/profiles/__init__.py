"""Profiles: fitted to measurements, estimated by a roofline, or found in the catalogue."""
