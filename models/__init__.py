"""The seam: what a bundle is, and the two stories its graphs are run through."""
