"""What a skill is: on disk, and as a behaviour tree."""
