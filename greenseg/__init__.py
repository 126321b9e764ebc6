"""greenseg: how much accuracy does a joule buy?

Trains segmentation networks over grids of settings, measures the energy of every epoch, and reports accuracy
against energy. Importing this package, its settings or its command line never imports torch.
"""

__version__ = "0.1.0"
