"""What a robot is: its spec, its observations, its commands, the clocks, and the gate every motion passes.

No torch and no py_trees in here. Nothing outside a spec knows a joint count, a camera name or an image size.
"""
