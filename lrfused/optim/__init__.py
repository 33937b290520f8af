"""The optimizers, their arguments, metrics, torch.compile support, ReportLR."""
