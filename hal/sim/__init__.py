"""The embedded robot: the reference arm on a differential base, a table scene, two rendered cameras."""
