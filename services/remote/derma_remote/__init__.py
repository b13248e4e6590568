"""The remote service: a classifier to the detector, whose crops are classified on other machines."""
