"""How children and supervisors are described, and what is wrong with a description."""
