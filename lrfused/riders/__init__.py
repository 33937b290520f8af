"""What goes along with an optimizer's steps: snapshots."""
