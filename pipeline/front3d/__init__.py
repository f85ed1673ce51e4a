"""3D-FRONT houses with 3D-FUTURE models as scenes: reading, assembling, filming with the tools of the built-in rooms.

Source of the formats: 3D-FRONT (Fu et al., ICCV 2021) and 3D-FUTURE (Fu et al., IJCV 2021) as released, and their tool box.
"""
