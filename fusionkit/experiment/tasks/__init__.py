"""What a model learns: classification, multilabel or regression.  A task knows its losses, metrics and predictions."""
