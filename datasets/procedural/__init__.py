"""What procedural scenes are made of: noise, materials, subjects, how they are rendered, and backgrounds.

Only operations whose results do not depend on the processor are used on pixels (sums, products, Pillow's drawing and
resizing, transcendental functions in float64), so that a scene is the same on every machine of one kind.
"""
