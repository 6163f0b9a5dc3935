"""The data that ship with fusionkit: UCI Multiple Features (``mfeat.npz``; source and licence in ``README.md``)."""
