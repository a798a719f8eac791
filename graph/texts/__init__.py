"""The words that authors edit: which texts there are, where they come from, how they are used."""
