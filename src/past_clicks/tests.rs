//! The store against a list that is searched from end to end.
