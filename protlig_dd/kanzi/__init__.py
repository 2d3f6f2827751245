"""Kanzi: an autoencoder of C-alpha traces by flow matching; its codes are a structure track."""
