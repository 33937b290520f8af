"""What goes along with an optimizer's steps: masks, averages of the weights, snapshots."""
