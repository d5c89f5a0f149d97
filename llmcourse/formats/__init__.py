"""Files of other libraries, read and written."""
