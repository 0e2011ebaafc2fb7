"""Files: weights and models of Nearfield and of others."""
