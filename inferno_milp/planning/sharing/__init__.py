"""Servers of one model that share replicas: `groups` says what a group would be, `share` finds which should be."""
