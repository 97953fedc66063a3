"""Programs compiled for clusters that are not here, and what their compilers say of them."""
