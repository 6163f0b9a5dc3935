"""Late fusion for any number of views, as fusionkit operators."""
