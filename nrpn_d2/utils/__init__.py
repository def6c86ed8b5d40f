"""Whole-or-absent files, safe loading, seeding, parallel work: nothing that knows of the method."""
