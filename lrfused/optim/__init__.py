"""What users construct: the optimizers, their arguments, metrics, torch.compile, ReportLR."""
