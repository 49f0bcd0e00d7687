//! Client, watches of guarded namespaces, and records: what both rims share.
