"""ScanNet v2 as released: .sens streams, meshes, segments, labels, Mask3D proposals, read natively and checked.

Source of the formats: the ScanNet repository's own description (README, "Data Formats"; Dai et al., CVPR 2017).
"""
