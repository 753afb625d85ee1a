"""Post-processing of predicted masks: rules by class, and their choice on validation images."""
