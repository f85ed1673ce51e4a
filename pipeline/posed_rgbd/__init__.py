"""Folders of posed RGB-D in the common conventions, read and written in the posed RGB-D layout of this project.

``tum``, ``seven_scenes``, ``redwood``, ``scannet_export`` read one convention each (``convention.Convention``), ``detect``
tells them apart, ``align`` makes z point up, ``depth`` converts units exactly, ``layout`` writes a scene, ``annotations`` adds
objects and official annotation files. The dataset kind is pipeline/datasets/posed_rgbd.py.
"""
