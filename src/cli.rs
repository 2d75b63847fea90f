//! The command line: parse and dispatch.
