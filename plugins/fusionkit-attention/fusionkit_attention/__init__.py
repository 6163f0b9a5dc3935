"""Gates and attention over any number of views, as fusionkit operators."""
