"""Where a gang fits: masks, domains, nodes, devices, and who would have to yield."""
