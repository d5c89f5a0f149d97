"""llmcourse: the small package behind the course on training large language models.

Importing it does nothing but define the version: no seed is set, nothing is downloaded and
torch is not imported until a module that needs it is.

>>> import llmcourse
>>> llmcourse.__version__
'0.1.0'
"""

__version__ = "0.1.0"
