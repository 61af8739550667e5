"""How the catalog's schema came to be what it is, step by step. `catalog.upgrading` runs them."""
