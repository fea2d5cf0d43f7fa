"""Server CPU per request over the network, for every loop and for plain C. See README.md, one folder up."""
