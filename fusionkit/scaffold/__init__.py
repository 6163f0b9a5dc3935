"""Writes new plugin packages, from the copier template in ``template/``."""
