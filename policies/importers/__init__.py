"""Checkpoints of other programs, brought into our form: the reference robot's, LeRobot's and the original ACT's.

A file of somebody else is data: nothing in it is run, what it claims is checked before memory is given to it, and a
tensor that is missing, left over or of another shape is refused by name.
"""

from policies.importers.description import Description, load_description
from policies.importers.imported import ImportedPolicy, Importer, ImportOptions, PolicyImportError, Provenance
from policies.importers.installing import install
from policies.importers.recognition import recognise

__all__ = [
    "Description",
    "ImportOptions",
    "ImportedPolicy",
    "Importer",
    "PolicyImportError",
    "Provenance",
    "install",
    "load_description",
    "recognise",
]
