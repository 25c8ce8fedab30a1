"""Ways to make one change of the weights out of a round's updates; pure, one file each."""
