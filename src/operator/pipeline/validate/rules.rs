//! The rules: the set the spec names, or the last one that could be used.
