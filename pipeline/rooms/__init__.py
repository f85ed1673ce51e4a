"""Procedural furnished rooms: parts, layout, camera path, rendering, sensor, and the language about them.

One room is a pure function of its seed (`scene.build_room`); the annotations of a split are a pure function of its rooms in
order (`annotate.annotate`). Nothing here knows about folders of the pipeline except `writers.py`.
"""
