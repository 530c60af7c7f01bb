"""Conformance: probes that hold any potential, inside its engine, to what every potential must obey there."""
