"""Tests of greenseg.measurement."""
